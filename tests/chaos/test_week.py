"""A few hours of the scripted week; `make week` lives through all of it.  Its checker: tests/history."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.chaos.driver import TROUBLES
from tests.chaos.week import KINDS, SAVES_EVERY, live, plan, told

SEED = 15
HERE = ("kill_node", "kill_scheduler")


@pytest.mark.ray
@pytest.mark.timeout(600)
def test_every_job_of_a_short_week_ends_as_if_nothing_had_happened(tmp_path: Path) -> None:
    """In two jobs, both at a time: a node of one is killed, and the scheduler while the other trains."""
    jobs = plan(SEED, len(HERE), HERE, steps=40)
    broken = live(SEED, jobs, tmp_path, patience_s=150)
    assert broken == [], told(SEED, jobs, broken, tmp_path)


def test_a_seed_decides_the_whole_plan() -> None:
    assert plan(7, 20) == plan(7, 20)
    assert plan(7, 20) != plan(8, 20)


def test_a_week_has_every_kind_of_trouble_on_one_rank_and_on_two() -> None:
    for seed in range(20):
        jobs = plan(seed, 20)
        kinds = Counter(trouble.what for job in jobs for trouble in job.troubles)
        kinds["raise"] = sum(job.raise_at is not None for job in jobs)
        assert kinds.keys() == set(KINDS) == {*TROUBLES, "raise"}
        assert min(kinds.values()) >= 1
        assert {job.num_ranks for job in jobs} == {1, 2}
        assert {job.loop for job in jobs} == {"tests.witness:walk", "train_loops.torch_ddp:train"}


def test_trouble_comes_after_checkpoints_and_before_the_end() -> None:
    for job in plan(3, 50):
        steps = [trouble.at_step for trouble in job.troubles] + [job.raise_at or 2 * SAVES_EVERY]
        assert min(steps) >= 2 * SAVES_EVERY
        assert max(steps) <= job.config["steps"] - 3 * SAVES_EVERY
