"""The resume report: what the scheduler verified, and what the loop says it restored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from scheduler.core.checkpoints import Checkpoint
from scheduler.core.finite import moment, whole
from scheduler.core.model import Json, Resumption
from scheduler.core.plain_values import plain_text

UNTOLD = "the loop does not say what it restored"


def resume_report(chosen: Checkpoint | None, skipped: Sequence[str]) -> Resumption:
    """What is known before the loop is entered; without *chosen* none of the checkpoints was whole."""
    if chosen is None:
        return Resumption(checkpoint=None, step=None, skipped=tuple(skipped))
    files = (
        f"{chosen.num_files} files, {chosen.num_bytes:,} bytes: sizes and hashes are those of the manifest"
    )
    return Resumption(checkpoint=chosen.id, step=chosen.step, checked=(files,), skipped=tuple(skipped))


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopReport:
    """What a loop says about its start and its stop, beside its progress (docs/architecture.md)."""

    resumed: Json | None = None
    stop_seen_at: datetime | None = None

    def complete(self, verified: Resumption | None, *, has_stepped: bool) -> Resumption | None:
        """The whole report.  A loop that *has_stepped* has had its chance to say what it restored."""
        if verified is None or verified.checkpoint is None:
            return verified
        if self.resumed is None:
            return replace(verified, differs=(UNTOLD,)) if has_stepped else verified
        step = whole(self.resumed.get("step"))
        return replace(
            verified,
            step=verified.step if step is None else step,
            checked=(*verified.checked, *_sentences(self.resumed.get("checked"))),
            differs=_sentences(self.resumed.get("differs")),
        )


def take_control_words(progress: Json | None) -> tuple[Json | None, LoopReport]:
    """Split what a loop said into the progress to show and the words meant for the scheduler."""
    if progress is None:
        return None, LoopReport()
    shown = {key: value for key, value in progress.items() if not _is_told_elsewhere(key, value)}
    resumed, seen = progress.get("resumed"), progress.get("stop_seen")
    return shown or None, LoopReport(
        resumed=resumed if isinstance(resumed, dict) else None,
        stop_seen_at=moment(seen),
    )


def _is_told_elsewhere(key: str, value: Any) -> bool:
    """Samples are long texts: they stay in the history of the job, and out of every answer and row."""
    return key in ("resumed", "stop_seen") or (key == "samples" and isinstance(value, list))


def _sentences(value: Any) -> tuple[str, ...]:
    return tuple(plain_text(one, 1_000) for one in value[:50]) if isinstance(value, list) else ()
