"""What a model answers to a few questions while it is trained; asking changes no step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch

if TYPE_CHECKING:
    from transformers import BatchEncoding, PreTrainedTokenizerBase

    from train_loops.config import SftConfig
    from train_loops.progress import Progress


class Samples:
    """The answers to the job's `sample_prompts`, always the likeliest token.  Only rank 0 asks."""

    def __init__(self, cfg: SftConfig, model: Any, tokenizer: PreTrainedTokenizerBase, rank: int) -> None:
        self.cfg, self.model, self.tokenizer = cfg, model, tokenizer
        self.prompts = cfg.sample_prompts if rank == 0 else []
        self._step: int | None = None
        self._answers: list[str] = []

    def is_due(self, step: int, *, is_evaluated: bool) -> bool:
        """At each evaluation, or every so many steps where the job says so."""
        every_steps = self.cfg.sample_every_steps
        return is_evaluated if every_steps is None else not is_evaluated and step % every_steps == 0

    def tell(self, progress: Progress, step: int) -> list[str]:
        """The answers of the model as it is after *step*; asked and told once for each step.

        In a line of their own: they are long, and must not be said again with every number.
        """
        if step != self._step and self.prompts:
            self._step, self._answers = step, self._ask()
            told = zip(self.prompts, self._answers, strict=True)
            progress.flush()
            progress.say(
                "training" if step else "loading",
                step=step,
                samples=[{"prompt": prompt, "text": text} for prompt, text in told],
            )
            progress.flush()
        return self._answers

    def _ask(self) -> list[str]:
        """Leaves the model in the mode it was in, and the random numbers of training alone."""
        device, was_training = self.model.device, self.model.training
        self.model.eval()
        try:
            with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), torch.no_grad():
                return [self._answer(prompt) for prompt in self.prompts]
        finally:
            self.model.train(was_training)

    def _answer(self, prompt: str) -> str:
        tokens = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}],
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=True,
        )
        asked = cast("BatchEncoding", tokens).to(self.model.device)
        said = self.model.generate(
            **asked,
            max_new_tokens=self.cfg.sample_max_tokens,
            do_sample=False,
            use_cache=True,
            eos_token_id=self.tokenizer.eos_token_id,
            pad_token_id=self.tokenizer.pad_token_id,
        )
        text = self.tokenizer.decode(said[0, asked["input_ids"].shape[1] :], skip_special_tokens=True)
        return cast("str", text).strip()
