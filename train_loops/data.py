"""Conversations as training examples: which tokens the model sees, and which of them it is asked to learn."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from jinja2 import TemplateError
from torch.nn.utils.rnn import pad_sequence

from train_loops.conversations import Conversation, Message, read

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORED = -100
"""The label that the loss of every transformers model leaves out."""
MARKS_ANSWERS = re.compile(r"\{%-?\s*generation\b")
"""In a chat template: it says itself which part of the text is the assistant's."""


@dataclass(slots=True)
class Examples:
    """What became of a file: the examples that can be learnt, and what was lost on the way."""

    items: list[dict[str, torch.Tensor]] = field(default_factory=list)
    num_cut: int = 0
    """Kept, but longer than the limit and cut at the end."""
    num_skipped: int = 0
    """Left out: none of their first tokens, up to the limit, is the assistant's."""

    def fingerprint(self) -> str:
        """The number of examples, and a hash of all their tokens and of what is to be learnt."""
        digest = hashlib.sha256()
        for item in self.items:
            for part in ("input_ids", "labels"):
                digest.update(len(item[part]).to_bytes(8, "big") + item[part].numpy().tobytes())
        return f"{len(self.items)} examples, sha256 {digest.hexdigest()[:16]}"

    def __str__(self) -> str:
        return (
            f"{len(self.items)} examples ({self.num_cut} cut, {self.num_skipped} left out: nothing to learn)"
        )


def load_examples(path: str, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Examples:
    """Read a file of conversations.  Raises ValueError that names the file and, if it can, the line."""
    examples = Examples()
    for conversation in read(Path(path)):
        ids, learnt = encoded(tokenizer, conversation)
        # The first token has nothing before it to be predicted from.
        if not any(learnt[1:max_length]):
            examples.num_skipped += 1
            continue
        examples.num_cut += len(ids) > max_length
        examples.items.append(as_tensors(ids[:max_length], learnt[:max_length]))
    if not examples.items:
        raise ValueError(
            f"{path}: none of {examples.num_skipped} conversations has an assistant's token among its first "
            f"{max_length}; raise max_length, or check that the roles are `user` and `assistant`"
        )
    return examples


def as_tensors(ids: list[int], learnt: list[bool]) -> dict[str, torch.Tensor]:
    labels = [token if mine else IGNORED for token, mine in zip(ids, learnt, strict=True)]
    return {
        "input_ids": torch.tensor(ids, dtype=torch.int32),
        "labels": torch.tensor(labels, dtype=torch.int32),
    }


def encoded(tokenizer: PreTrainedTokenizerBase, conversation: Conversation) -> tuple[list[int], list[bool]]:
    """As `encode`.  What the template refuses is told with file and line."""
    try:
        return encode(tokenizer, conversation.messages)
    except TemplateError as error:
        raise ValueError(
            f"{conversation.where}: the chat template of {tokenizer.name_or_path} does not take this conversation: "
            f"{error.message or type(error).__name__}; change it, or leave it out"
        ) from error


def encode(tokenizer: PreTrainedTokenizerBase, messages: list[Message]) -> tuple[list[int], list[bool]]:
    """The tokens of a conversation, and for each whether it is to be learnt: is it the assistant's?"""
    if not tokenizer.chat_template:
        raise ValueError(
            f"the tokenizer of {tokenizer.name_or_path} has no chat template; take an instruction-tuned "
            "model, or put a chat_template.jinja beside its tokenizer"
        )
    if MARKS_ANSWERS.search(str(tokenizer.chat_template)):
        return encode_with_marks(tokenizer, messages)
    return encode_by_prefixes(tokenizer, messages)


def encode_with_marks(
    tokenizer: PreTrainedTokenizerBase, messages: list[Message]
) -> tuple[list[int], list[bool]]:
    encoded: Any = tokenizer.apply_chat_template(
        messages, return_dict=True, return_assistant_tokens_mask=True
    )
    return list(encoded["input_ids"]), [bool(mine) for mine in encoded["assistant_masks"]]


def encode_by_prefixes(
    tokenizer: PreTrainedTokenizerBase, messages: list[Message]
) -> tuple[list[int], list[bool]]:
    """An answer is what the conversation up to it has more than the conversation up to its question.

    Some templates rewrite earlier answers once the conversation goes on (they drop the reasoning).  Such an
    answer is seen but not learnt: it stands there in another form than the one the model has to give.  So is
    an opening by the assistant, which answers nothing.
    """
    ids = tokens_of(tokenizer, messages)
    learnt = [False] * len(ids)
    for turn, message in enumerate(messages):
        if turn == 0 or message["role"] != "assistant":
            continue
        asked = tokens_of(tokenizer, messages[:turn])
        start = len_common(ids, tokens_of(tokenizer, messages[:turn], add_generation_prompt=True))
        answered = tokens_of(tokenizer, messages[: turn + 1])
        if start >= len(asked) and len_common(ids, answered) == len(answered):
            end = end_of_turn(tokenizer, ids, start, len(answered))
            learnt[start:end] = [True] * (end - start)
    return ids, learnt


def tokens_of(
    tokenizer: PreTrainedTokenizerBase, messages: list[Message], *, add_generation_prompt: bool = False
) -> list[int]:
    tokens = tokenizer.apply_chat_template(
        messages, tokenize=True, return_dict=False, add_generation_prompt=add_generation_prompt
    )
    return list(cast("list[int]", tokens))


def len_common(left: list[int], right: list[int]) -> int:
    """How many first tokens are the same.  Joined text may merge tokens at the seam: then less than all."""
    for position, (a, b) in enumerate(zip(left, right, strict=False)):
        if a != b:
            return position
    return min(len(left), len(right))


def end_of_turn(tokenizer: PreTrainedTokenizerBase, ids: list[int], start: int, end: int) -> int:
    """Just after the last end-of-sequence token: a line break behind it is the template's."""
    for position in range(end - 1, start - 1, -1):
        if ids[position] == tokenizer.eos_token_id:
            return position + 1
    return end


@dataclass(frozen=True, slots=True)
class PadBatch:
    """Pads a batch on the right to its longest example."""

    pad_token_id: int

    def __call__(self, examples: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        ids = [example["input_ids"].long() for example in examples]
        labels = [example["labels"].long() for example in examples]
        return {
            "input_ids": pad_sequence(ids, batch_first=True, padding_value=self.pad_token_id),
            "attention_mask": pad_sequence([torch.ones_like(row) for row in ids], batch_first=True),
            "labels": pad_sequence(labels, batch_first=True, padding_value=IGNORED),
        }
