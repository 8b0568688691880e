"""What a replay came to, counted from its log alone: anybody who has the log comes to the same numbers."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from scheduler.core.contender import DAY_S, HOUR_S
from scheduler.core.model import JobId
from scheduler.core.needs import Outline, num_ranks
from scheduler.core.replay import Entry, Line


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The numbers by which policies are compared."""

    jobs: int
    avg_jct_s: float
    """From submission to the end."""
    p50_s: float
    p99_s: float
    longest_wait_s: float
    """The longest time in one piece that a job waited, before its first run or between two."""
    lost_share: float
    """GPU time that preemptions cost, of what the jobs needed."""
    most_lost_in_an_hour: float
    """Of the cluster's time, in the worst hour."""
    preemptions: int
    max_preemptions_of_one_job: int
    projects: dict[str, ProjectReport] = field(default_factory=dict[str, "ProjectReport"])


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectReport:
    jobs: int
    avg_jct_s: float
    gpu_s: float
    gpu_s_by_day: tuple[float, ...]


def report(entries: Sequence[Entry], log: Sequence[Line], cluster: Outline) -> Report:
    """*entries* by time of submission, as they are numbered in *log*."""
    sizes = [cluster.size_of(entry.gang, 1) for entry in entries]
    waits_since = [entry.submit_s for entry in entries]
    runs_since: dict[int, float] = {}
    ended: dict[int, float] = {}
    preempted: Counter[int] = Counter()
    lost_at: list[tuple[float, float]] = []
    longest_wait_s = 0.0
    got: defaultdict[str, defaultdict[int, float]] = defaultdict(lambda: defaultdict(float))
    for line in log:
        number = line.number
        if line.what == "start":
            longest_wait_s = max(longest_wait_s, line.at_s - waits_since[number])
            runs_since[number] = line.at_s
            continue
        held = sizes[number] * num_ranks(line.allocation)
        for day, seconds in _by_day(runs_since.pop(number), line.at_s):
            got[entries[number].project][day] += held * seconds
        if line.what == "end":
            ended[number] = line.at_s
        elif line.reckoning:
            waits_since[number] = line.at_s
            preempted[number] += 1
            lost_at.append((line.at_s, line.reckoning.price_of(JobId(f"{number:06d}"))))
    took = sorted(ended[number] - entries[number].submit_s for number in ended)
    needed = sum(entry.duration_s * cluster.size_of(entry.gang, entry.gang.fewest) for entry in entries)
    return Report(
        jobs=len(took),
        avg_jct_s=sum(took) / len(took),
        p50_s=took[len(took) // 2],
        p99_s=took[int(0.99 * len(took))],
        longest_wait_s=longest_wait_s,
        lost_share=sum(price for _, price in lost_at) / needed,
        most_lost_in_an_hour=_most_in_an_hour(lost_at) / (cluster.size * HOUR_S),
        preemptions=len(lost_at),
        max_preemptions_of_one_job=max(preempted.values(), default=0),
        projects=_projects(entries, ended, got),
    )


def _projects(
    entries: Sequence[Entry], ended: dict[int, float], got: dict[str, defaultdict[int, float]]
) -> dict[str, ProjectReport]:
    took: defaultdict[str, list[float]] = defaultdict(list)
    for number, at_s in ended.items():
        took[entries[number].project].append(at_s - entries[number].submit_s)
    days = 1 + max((day for each in got.values() for day in each), default=0)
    return {
        project: ProjectReport(
            jobs=len(each),
            avg_jct_s=sum(each) / len(each),
            gpu_s=sum(got[project].values()),
            gpu_s_by_day=tuple(got[project][day] for day in range(days)),
        )
        for project, each in sorted(took.items())
    }


def _by_day(from_s: float, to_s: float) -> list[tuple[int, float]]:
    parts: list[tuple[int, float]] = []
    while from_s < to_s:
        day = int(from_s // DAY_S)
        until_s = min(to_s, (day + 1) * DAY_S)
        parts.append((day, until_s - from_s))
        from_s = until_s
    return parts


def _most_in_an_hour(lost_at: Sequence[tuple[float, float]]) -> float:
    """In any hour, whenever it begins."""
    most = within = 0.0
    first = 0
    for at_s, price in lost_at:
        within += price
        while lost_at[first][0] <= at_s - HOUR_S:
            within -= lost_at[first][1]
            first += 1
        most = max(most, within)
    return most
