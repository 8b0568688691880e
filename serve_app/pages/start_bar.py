"""The phases of a start, as a bar of time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from scheduler.api.jobs import JobDocument
from scheduler.core.model import Phase

WIDTH = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    name: str
    seconds: float
    is_open: bool
    """It lasts until now."""
    x: float = 0
    width: float = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StartBar:
    stretches: tuple[Stretch, ...]
    """From the first phase to the first step."""
    after: tuple[Stretch, ...]
    """What came then."""

    @property
    def total_s(self) -> float:
        return sum(one.seconds for one in self.stretches)


def start_bar(job: JobDocument, now: datetime) -> StartBar | None:
    """None when nothing is known of a start."""
    began = sorted(job.phases.items(), key=lambda one: one[1])
    if not began:
        return None
    ends = [at for _, at in began[1:]] + [job.finished_at or now]
    all_of_it = [
        Stretch(name=name, seconds=max(0.0, (end - at).total_seconds()), is_open=index == len(began) - 1)
        for index, ((name, at), end) in enumerate(zip(began, ends, strict=True))
    ]
    names = [one.name for one in all_of_it]
    if Phase.TRAINING not in names:
        return StartBar(stretches=_laid_out(all_of_it), after=())
    first_step = names.index(Phase.TRAINING)
    # Training, saving and evaluating take turns, and only the first moment of each is known.
    seconds = sum(one.seconds for one in all_of_it[first_step:])
    since = Stretch(name=Phase.TRAINING, seconds=seconds, is_open=job.finished_at is None)
    return StartBar(stretches=_laid_out(all_of_it[:first_step]), after=(since,))


def _laid_out(stretches: list[Stretch]) -> tuple[Stretch, ...]:
    total_s = sum(one.seconds for one in stretches) or 1.0
    laid: list[Stretch] = []
    x = 0.0
    for one in stretches:
        width = WIDTH * one.seconds / total_s
        laid.append(
            Stretch(
                name=one.name,
                seconds=one.seconds,
                is_open=one.is_open,
                x=round(x, 1),
                width=round(max(width, 2.0), 1),
            )
        )
        x += width
    return tuple(laid)
