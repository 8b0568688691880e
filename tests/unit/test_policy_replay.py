"""A replay can be trusted: rebuilt from its log alone it breaks no promise, and each preemption can be recomputed."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace
from functools import lru_cache

import pytest

from scheduler.core.contender import HOUR_S, Rules
from scheduler.core.model import JobId, Node, NodeId
from scheduler.core.needs import Outline
from scheduler.core.replay import Entry, Line, Replay, World, chance
from scheduler.core.replay_report import report
from scheduler.testing.contenders import gpus
from scheduler.testing.reckonings import faults
from scheduler.testing.traces import KINDS, trace

NODES = tuple(Node(id=NodeId(f"n{number}"), cpus=64, gpus=8) for number in range(4))
CLUSTER = Outline(NODES)
RULES = Rules()


@lru_cache
def played(kind: str = "bursts", projects: int = 1, tells: float = 1.0) -> Replay:
    entries = trace(KINDS[kind], gpus=32, days=3, jobs=300, seed=1, projects=projects)
    return Replay(entries, CLUSTER, RULES, World(tells=tells)).play()


REPLAYS = [("bursts", 1, 1.0), ("large gangs", 1, 0.0), ("sweeps", 3, 0.7)]
each_replay = pytest.mark.parametrize(("kind", "projects", "tells"), REPLAYS)


@each_replay
def test_every_job_ends_after_exactly_its_work(kind: str, projects: int, tells: float) -> None:
    """Its runs together are as long as it takes, and a restart for each that followed a preemption."""
    played_ = played(kind, projects, tells)
    ran: defaultdict[int, list[float]] = defaultdict(list)
    since: dict[int, float] = {}
    for line in played_.log:
        if line.what == "start":
            assert since.setdefault(line.number, line.at_s) == line.at_s, "it runs twice at once"
        else:
            ran[line.number].append(line.at_s - since.pop(line.number))
    assert not since
    assert len(ran) == len(played_.entries)
    for number, runs in ran.items():
        restarts = sum(min(60.0, run) for run in runs[1:])
        assert sum(runs) == pytest.approx(played_.entries[number].duration_s + restarts, abs=1e-3)


@each_replay
def test_no_node_ever_holds_more_than_it_has(kind: str, projects: int, tells: float) -> None:
    used: Counter[NodeId] = Counter()
    for line in played(kind, projects, tells).log:
        for node, ranks in line.allocation.ranks:
            used[node] += ranks if line.what == "start" else -ranks
            assert 0 <= used[node] <= 8
    assert not any(used.values())


@each_replay
def test_each_preemption_can_be_recomputed_from_its_reckoning_alone(
    kind: str, projects: int, tells: float
) -> None:
    stops = [line for line in played(kind, projects, tells).log if line.what == "stop"]
    assert stops
    for line in stops:
        assert line.reckoning
        assert faults(line.reckoning, JobId(f"{line.number:06d}")) == []


@each_replay
def test_every_stop_frees_a_node_for_a_start_of_the_same_instant(
    kind: str, projects: int, tells: float
) -> None:
    log = played(kind, projects, tells).log
    starts = {
        (line.at_s, line.number): {node for node, _ in line.allocation.ranks}
        for line in log
        if line.what == "start"
    }
    for line in log:
        if line.reckoning:
            assert {node for node, _ in line.allocation.ranks} & starts[
                line.at_s, int(line.reckoning.newcomer)
            ]


@each_replay
def test_bounds_of_a_job_and_of_an_hour(kind: str, projects: int, tells: float) -> None:
    played_ = played(kind, projects, tells)
    told = report(played_.entries, played_.log, CLUSTER)
    largest = max(line.reckoning.price for line in played_.log if line.reckoning)
    assert told.most_lost_in_an_hour * CLUSTER.size * HOUR_S <= 0.02 * CLUSTER.size * HOUR_S + largest
    at: defaultdict[int, list[float]] = defaultdict(list)
    for line in played_.log:
        if line.what == "stop":
            at[line.number].append(line.at_s)
    for number, times in at.items():
        hours = played_.entries[number].duration_s / HOUR_S
        assert len(times) <= 4 + 2 * (hours + len(times) / 60) + 1
        assert all(later - first > HOUR_S for first, later in zip(times, times[2:], strict=False))


def test_nobody_waits_much_more_than_a_day() -> None:
    """Though the cluster is asked for more than it has, for days."""
    entries = [Entry(submit_s=0.0, duration_s=40 * HOUR_S, gang=gpus(8)) for _ in range(6)]
    entries += [
        Entry(submit_s=hour * HOUR_S, duration_s=HOUR_S, gang=gpus(8))
        for hour in range(100)
        for _ in range(4)
    ]
    played_ = Replay(entries, CLUSTER, RULES).play()
    assert report(played_.entries, played_.log, CLUSTER).longest_wait_s <= 36 * HOUR_S


def test_the_policy_beats_first_in_first_out_by_far() -> None:
    entries = trace(KINDS["bursts"], gpus=32, days=3, jobs=300, seed=1)
    today = Replay(entries, CLUSTER, None).play()
    fair = played()
    assert not any(line.what == "stop" for line in today.log)
    new = report(fair.entries, fair.log, CLUSTER)
    assert new.avg_jct_s < 0.7 * report(today.entries, today.log, CLUSTER).avg_jct_s
    assert new.lost_share < 0.02


def test_the_policy_never_sees_a_length() -> None:
    """Blind, two traces that differ only after a moment are played alike up to it."""
    entries = trace(KINDS["bursts"], gpus=32, days=1, jobs=150, seed=3)
    long = max(range(len(entries)), key=lambda number: entries[number].duration_s)
    other = [
        replace(entry, duration_s=entry.duration_s * (3 if n == long else 1))
        for n, entry in enumerate(entries)
    ]
    one, two = (Replay(each, CLUSTER, RULES, World(tells=0.0)).play() for each in (entries, other))
    ends_s = next(line.at_s for line in one.log if line.what == "end" and line.number == long)
    before = [[line for line in each.log if line.at_s < ends_s] for each in (one, two)]
    assert before[0] == before[1]


def test_a_replay_is_the_same_each_time() -> None:
    entries = trace(KINDS["sweeps"], gpus=32, days=1, jobs=100, seed=2)
    assert Replay(entries, CLUSTER, RULES).play().log == Replay(entries, CLUSTER, RULES).play().log
    assert 0.4 < sum(chance(1, number, 0) for number in range(1000)) / 1000 < 0.6


# -- the auditor knows the rule, and nothing of the code that follows it


def test_the_auditor_finds_what_is_wrong() -> None:
    """An auditor who finds nothing would let everything pass."""
    line = next(
        line
        for line in played().log
        if line.reckoning and line.reckoning.claim == "length" and line.reckoning.on_one
    )
    good, victim = line.reckoning, JobId(f"{line.number:06d}")
    assert good
    assert faults(replace(good, spent=good.budget), victim) == ["the budget was used up"]
    assert "a victim has too little left" in faults(replace(good, left=1e12), victim)
    assert "what is freed is not enough" in faults(
        replace(good, num_ranks=99, allocation=_doubled(line)), victim
    )
    assert faults(replace(good, candidates=()), victim) == ["the victim is no candidate"]
    cheaper = replace(
        good.candidates[0], id=JobId("x"), price=0.0, left=1e12, whole=8, ranks=((NODES[3].id, 1),), seq=9999
    )
    assert any(
        "was better" in one for one in faults(replace(good, candidates=(*good.candidates, cheaper)), victim)
    )


def _doubled(line: Line):
    return replace(line.allocation, ranks=tuple((node, 99) for node, _ in line.allocation.ranks))
