"""Which tokens of a conversation are learnt: on ChatML, the real SmolLM2, and templates that make it hard."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from tests.tiny_model import CHATML, numbered_pairs, tiny_tokenizer, write_conversations
from train_loops.config import SftConfig
from train_loops.conversations import read
from train_loops.data import IGNORED, PadBatch, encode, load_examples

SMOLLM2 = Path(__file__).parents[2] / ".cache" / "models" / "SmolLM2-135M-Instruct"

TWO_TURNS = [
    {"role": "system", "content": "be brief"},
    {"role": "user", "content": "one?"},
    {"role": "assistant", "content": "1"},
    {"role": "user", "content": "two?"},
    {"role": "assistant", "content": "2, I think"},
]

MARKED = CHATML.replace(
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}",
    "{{ '<|im_start|>' + message['role'] + '\n' }}{% if message['role'] == 'assistant' %}{% generation %}"
    "{{ message['content'] + '<|im_end|>' }}{% endgeneration %}{{ '\n' }}"
    "{% else %}{{ message['content'] + '<|im_end|>\n' }}{% endif %}",
)
FORGETS_EARLIER_THOUGHTS = CHATML.replace(
    "message['content'] + '<|im_end|>\n'",
    "('<think></think>' if message['role'] == 'assistant' and loop.last else '')"
    " + message['content'] + '<|im_end|>\n'",
)
ASKS_FOR_A_THOUGHT = CHATML.replace(
    "'<|im_start|>assistant\n' }}{% endif", "'<|im_start|>assistant\n<think>' }}{% endif"
)


def learnt_text(tokenizer: Any, messages: list[dict[str, str]]) -> list[str]:
    """The learnt stretches of a conversation, as text."""
    ids, learnt = encode(tokenizer, messages)
    stretches: list[list[int]] = [[]]
    for token, mine in zip(ids, learnt, strict=True):
        if mine:
            stretches[-1].append(token)
        elif stretches[-1]:
            stretches.append([])
    return [tokenizer.decode(stretch) for stretch in stretches if stretch]


@pytest.mark.parametrize(
    ("template", "learnt"),
    [
        (CHATML, ["1<|im_end|>", "2, I think<|im_end|>"]),
        (MARKED, ["1<|im_end|>", "2, I think<|im_end|>"]),
        (FORGETS_EARLIER_THOUGHTS, ["<think></think>2, I think<|im_end|>"]),
        (ASKS_FOR_A_THOUGHT, ["1<|im_end|>", "2, I think<|im_end|>"]),
    ],
    ids=["plain", "marks its answers", "rewrites earlier answers", "asks with more than it answers"],
)
def test_only_the_answers_are_learnt_with_their_end(template: str, learnt: list[str]) -> None:
    """Otherwise a model learns to ask its own questions, or never to stop."""
    assert learnt_text(tiny_tokenizer(template), TWO_TURNS) == learnt


@pytest.mark.skipif(not SMOLLM2.is_dir(), reason=f"run: python examples/prepare_model.py --to {SMOLLM2}")
def test_the_real_smollm2_learns_the_answers_only() -> None:
    """Its template puts a system turn first and a line break behind each turn; neither is learnt."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(SMOLLM2)
    assert learnt_text(tokenizer, TWO_TURNS) == ["1<|im_end|>", "2, I think<|im_end|>"]
    assert learnt_text(tokenizer, TWO_TURNS[1:]) == ["1<|im_end|>", "2, I think<|im_end|>"]
    ids, _ = encode(tokenizer, TWO_TURNS)
    assert tokenizer.decode(ids) == tokenizer.apply_chat_template(TWO_TURNS, tokenize=False)


def test_an_opening_by_the_assistant_is_not_an_answer() -> None:
    """Otherwise the marks before it, which the model never has to write, would be learnt with it."""
    opening = [{"role": "assistant", "content": "hello"}, *TWO_TURNS[1:3]]
    assert learnt_text(tiny_tokenizer(), opening) == ["1<|im_end|>"]


def test_a_tokenizer_without_a_template_is_refused_by_name() -> None:
    """Otherwise a base model would be trained on a format nobody chose."""
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = None
    with pytest.raises(ValueError, match="no chat template"):
        encode(tokenizer, TWO_TURNS)


def test_cutting_keeps_something_to_learn_or_leaves_the_conversation_out(tmp_path: Path) -> None:
    """An example without a target gives a loss of 0/0, and that NaN would end the whole run."""
    pairs = [("a", "short"), ("a", "long " * 50), ("a question " * 20, "never reached")]
    examples = load_examples(str(write_conversations(tmp_path / "d.jsonl", pairs)), tiny_tokenizer(), 64)
    assert (len(examples.items), examples.num_cut, examples.num_skipped) == (2, 1, 1)
    for item in examples.items:
        assert len(item["input_ids"]) == len(item["labels"]) <= 64
        assert (item["labels"][1:] != IGNORED).any()


def test_a_file_with_nothing_to_learn_is_refused_with_the_remedy(tmp_path: Path) -> None:
    """Otherwise the run starts, and dies with a division by zero."""
    file = write_conversations(tmp_path / "d.jsonl", [("a question " * 20, "never reached")])
    with pytest.raises(ValueError, match=r"none of 1 conversations.*raise max_length"):
        load_examples(str(file), tiny_tokenizer(), 64)


@pytest.mark.parametrize(
    "line",
    [
        "not json",
        "[]",
        "{}",
        '{"messages": []}',
        '{"messages": [{"role": "user"}]}',
        '{"messages": [{"role": "user", "content": 1}]}',
    ],
)
def test_a_bad_line_is_named_by_file_and_number(line: str, tmp_path: Path) -> None:
    """Otherwise its author searches ten thousand lines."""
    file = write_conversations(tmp_path / "d.jsonl", numbered_pairs(2))
    file.write_text(file.read_text() + "\n" + line + "\n")
    with pytest.raises(ValueError, match=r"d\.jsonl, line 4"):
        list(read(file))


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    """Otherwise the Trainer fails with a message about samplers."""
    (tmp_path / "d.jsonl").write_text("\n\n")
    with pytest.raises(ValueError, match="holds no conversation"):
        list(read(tmp_path / "d.jsonl"))


def test_padding_is_neither_seen_nor_learnt(tmp_path: Path) -> None:
    """Otherwise the result depends on who shares a batch with whom."""
    examples = load_examples(
        str(write_conversations(tmp_path / "d.jsonl", numbered_pairs(4))), tiny_tokenizer(), 512
    )
    batch = PadBatch(0)(examples.items)
    for row, item in enumerate(examples.items):
        length = len(item["input_ids"])
        assert batch["input_ids"][row, :length].tolist() == item["input_ids"].tolist()
        assert batch["attention_mask"][row].sum() == length
        assert (batch["labels"][row, length:] == IGNORED).all()
    assert batch["input_ids"].shape[1] == max(len(item["input_ids"]) for item in examples.items)


def test_unicode_survives(tmp_path: Path) -> None:
    """Otherwise only English can be taught."""
    file = tmp_path / "d.jsonl"
    file.write_text(
        json.dumps(
            {"messages": [{"role": "user", "content": "ü"}, {"role": "assistant", "content": "日本"}]},
            ensure_ascii=False,
        )
    )
    assert learnt_text(tiny_tokenizer(), next(read(file)).messages) == ["日本<|im_end|>"]


def test_a_conversation_that_the_template_refuses_is_named_by_file_and_line(tmp_path: Path) -> None:
    """B4: the template's own words alone say neither which of ten thousand lines it was, nor whose words they are."""
    strict = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
        + CHATML
    )
    rows = [TWO_TURNS[1:3], TWO_TURNS[1:], TWO_TURNS]
    file = tmp_path / "d.jsonl"
    file.write_text("".join(json.dumps({"messages": messages}) + "\n" for messages in rows))
    words = r"d\.jsonl, line 3: the chat template of .* does not take this conversation: System role not supported"
    with pytest.raises(ValueError, match=words):
        load_examples(str(file), tiny_tokenizer(strict), 512)


def test_the_loop_reads_a_path_as_the_door_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """B4: a job of an earlier release, or a loop that is run by hand, still says `~`."""
    monkeypatch.setenv("HOME", str(tmp_path))
    cfg = SftConfig(
        model="~/model", dataset=f"file://{tmp_path}/d%20e.jsonl", eval_dataset="org/relative.jsonl"
    )
    assert (cfg.model, cfg.dataset) == (str(tmp_path / "model"), str(tmp_path / "d e.jsonl"))
    assert cfg.eval_dataset == "org/relative.jsonl"


def test_the_same_conversations_train_the_same_however_they_are_written(tmp_path: Path) -> None:
    """B4: not only read: the very same tokens are learnt."""
    text = write_conversations(tmp_path / "plain", numbered_pairs(3)).read_text()
    rows = [json.loads(line) for line in text.splitlines()]
    (tmp_path / "windows").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    (tmp_path / "utf16").write_bytes(text.encode("utf-16"))
    (tmp_path / "gzip").write_bytes(gzip.compress(text.encode()))
    (tmp_path / "list").write_text(json.dumps(rows, indent=2))
    prints = {
        load_examples(str(file), tiny_tokenizer(), 512).fingerprint() for file in sorted(tmp_path.iterdir())
    }
    assert len(prints) == 1
