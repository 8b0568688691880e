"""Who starts, where, and what the others are told."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.core.model import Allocation, Gang, Job, JobId, Node, NodeId, Snapshot
from scheduler.core.placement import Plan, feasible, fit, plan
from scheduler.testing.builders import a_job, a_node, a_spec


def gang(ranks: int = 1, cpus: float = 1.0, gpus: float = 0.0) -> Gang:
    return Gang(num_ranks=ranks, cpus_per_rank=cpus, gpus_per_rank=gpus)


def elastic(fewest: int, most: int, cpus: float = 1.0, gpus: float = 0.0) -> Gang:
    return Gang(min_ranks=fewest, max_ranks=most, cpus_per_rank=cpus, gpus_per_rank=gpus)


def queue(*gangs: Gang) -> list[Job]:
    """Jobs `job-1`, `job-2`, ... in the order of their turn."""
    return [
        a_job(id=f"job-{number}", spec=a_spec(resources=gang, name=f"name-{number}"))
        for number, gang in enumerate(gangs, start=1)
    ]


def snapshot(*nodes: Node, running: dict[str, Gang] | None = None) -> Snapshot:
    """*running*: on which node all ranks of a gang are."""
    held = tuple((gang, on(node, gang.num_ranks)) for node, gang in (running or {}).items())
    return Snapshot(nodes=nodes, running=held)


def on(node: str, ranks: int = 1) -> Allocation:
    return Allocation(ranks=((NodeId(node), ranks),))


def started(made: Plan) -> list[str]:
    return sorted(made.start)


def num_ranks(made: Plan) -> list[int]:
    """Of each job that starts, in the order of the line."""
    return [len(allocation.node_of_each_rank) for allocation in made.start.values()]


def codes(made: Plan) -> dict[JobId, str]:
    return {job_id: reason.code for job_id, reason in made.blocked.items()}


CPUS = st.sampled_from([0.5, 1.0, 2.0])
GPUS = st.sampled_from([0.0, 0.0, 0.3, 0.5, 1.0, 2.0])
FIXED = st.builds(gang, st.integers(1, 6), CPUS, GPUS)
ELASTIC = st.builds(
    lambda fewest, more, cpus, gpus: elastic(fewest, fewest + more, cpus, gpus),
    st.integers(1, 4),
    st.integers(0, 6),
    CPUS,
    GPUS,
)


@st.composite
def clusters(draw: st.DrawFn) -> Snapshot:
    """Up to four nodes, of which others use some, with runs that were started there."""
    sizes = draw(
        st.lists(st.tuples(st.integers(1, 8), st.sampled_from([0, 0, 1, 4])), min_size=1, max_size=4)
    )
    nodes = tuple(a_node(f"n{i}", cpus=cpus, gpus=gpus) for i, (cpus, gpus) in enumerate(sizes))
    runs = queue(*draw(st.lists(FIXED, max_size=4)))
    made = plan(runs, Snapshot(nodes=nodes))
    ended = draw(st.sets(st.sampled_from(runs).map(lambda job: job.id))) if runs else set[JobId]()
    held = [(job.spec.resources, made.start[job.id]) for job in runs if job.id in made.start.keys() - ended]
    free = draw(st.none() | st.sampled_from([0.5, 2.0]))
    return Snapshot(nodes=(replace(nodes[0], available_cpus=free), *nodes[1:]), running=tuple(held))


def test_the_first_in_line_starts_first() -> None:
    """L2: otherwise whoever came last could be served first."""
    made = plan(queue(gang(gpus=1), gang(gpus=1)), snapshot(a_node(gpus=1)))
    assert started(made) == ["job-1"]
    assert set(made.blocked) == {"job-2"}


def test_every_job_of_the_queue_starts_or_is_told_why_not() -> None:
    """A job in neither would wait without a word: P3 again."""
    jobs = queue(gang(gpus=2), gang(gpus=2), gang(gpus=9), gang(), gang(ranks=3))
    made = plan(jobs, snapshot(a_node(gpus=3, cpus=4)))
    assert set(made.start) | set(made.blocked) == {job.id for job in jobs}
    assert not set(made.start) & set(made.blocked)


def test_a_gang_that_fits_only_in_part_does_not_start() -> None:
    """Half a gang would hold its nodes and wait for the rest for ever."""
    made = plan(queue(gang(ranks=3, gpus=1)), snapshot(a_node("a", gpus=1), a_node("b", gpus=1)))
    assert not made.start


@pytest.mark.parametrize(
    ("sentence", "wanted", "nodes", "placed"),
    [
        (
            "the node with the fewest GPUs left over is taken",
            gang(ranks=2, gpus=1),
            {"a": (8, 8), "b": (8, 3), "c": (8, 2)},
            (("c", 2),),
        ),
        (
            "among those the one with the fewest CPUs left over",
            gang(gpus=1),
            {"a": (8, 1), "b": (2, 1), "c": (4, 1)},
            (("b", 1),),
        ),
        ("among equals the smallest id", gang(), {"b": (8, 0), "a": (8, 0)}, (("a", 1),)),
        (
            "one node for the whole gang is better than a tighter fit on two",
            gang(ranks=4, gpus=1),
            {"a": (8, 2), "b": (8, 2), "c": (64, 8)},
            (("c", 4),),
        ),
        (
            "as few nodes as possible, the most spacious first",
            gang(ranks=6, gpus=1),
            {"a": (8, 1), "b": (8, 4), "c": (8, 1), "d": (8, 3)},
            (("b", 4), ("d", 2)),
        ),
        (
            "the rest goes where it fits best",
            gang(ranks=5, gpus=1),
            {"a": (8, 4), "b": (8, 3), "c": (8, 1)},
            (("a", 4), ("c", 1)),
        ),
        (
            "a gang without GPUs leaves the nodes that have some alone",
            gang(cpus=2),
            {"a": (4, 8), "b": (64, 0)},
            (("b", 1),),
        ),
        (
            "CPUs can be what limits a node",
            gang(ranks=2, cpus=4, gpus=1),
            {"a": (4, 8), "b": (7, 8)},
            (("a", 1), ("b", 1)),
        ),
        (
            "several equal nodes are filled one after the other",
            gang(ranks=7, gpus=1),
            {"c": (8, 2), "a": (8, 2), "b": (8, 2), "d": (8, 2)},
            (("a", 2), ("b", 2), ("c", 2), ("d", 1)),
        ),
    ],
)
def test_where_a_gang_goes(
    sentence: str,
    wanted: Gang,
    nodes: dict[str, tuple[float, float]],
    placed: tuple[tuple[str, int], ...],
) -> None:
    """The choice is a rule, so that two passes over the same cluster agree."""
    cluster = snapshot(*(a_node(name, cpus=cpus, gpus=gpus) for name, (cpus, gpus) in nodes.items()))
    allocation = fit(wanted, cluster)
    assert allocation is not None, sentence
    assert allocation.ranks == placed, sentence


def test_what_runs_now_is_taken_off() -> None:
    """DESIGN rule 7: free resources are derived from live runs, or two gangs share a GPU."""
    cluster = snapshot(a_node("a", gpus=4), a_node("b", gpus=4), running={"a": gang(ranks=3, gpus=1)})
    assert fit(gang(gpus=2), cluster) == on("b")
    assert fit(gang(gpus=1), cluster) == on("a")


@pytest.mark.parametrize(
    ("available", "fits"), [({"available_gpus": 1.0}, 1), ({"available_cpus": 0.5}, 0), ({}, 2)]
)
def test_what_ray_says_is_taken_counts_too(available: dict[str, Any], fits: int) -> None:
    """Others use the cluster besides us: a gang placed on their GPUs would hang before its first step."""
    cluster = snapshot(a_node(gpus=2, **available))
    assert [fit(gang(ranks=ranks, gpus=1), cluster) is not None for ranks in (1, 2)] == [fits >= 1, fits >= 2]


def test_ray_that_lags_behind_does_not_free_what_we_hold() -> None:
    """Ray shows a started run a second late; believing it would start a second run on the same GPU."""
    cluster = snapshot(a_node("a", gpus=1, available_gpus=1.0), running={"a": gang(gpus=1)})
    assert fit(gang(gpus=1), cluster) is None
    cluster = snapshot(a_node("a", cpus=1, available_cpus=1.0), running={"a": gang()})
    assert fit(gang(), cluster) is None


def test_a_run_on_a_node_that_has_gone_does_not_disturb() -> None:
    """A node dies before the end of its runs is known."""
    assert fit(gang(), snapshot(a_node("a"), running={"gone": gang(ranks=4)})) == on("a")


def test_a_later_smaller_job_starts_beside_the_kept_place() -> None:
    """Only the place of the one who waits is kept, not the whole cluster."""
    cluster = snapshot(a_node("a", gpus=4), a_node("b", gpus=4), running={"a": gang(gpus=1)})
    made = plan(queue(gang(ranks=8, gpus=1), gang(gpus=1)), cluster)
    assert not made.start, "the big one needs every GPU there is"
    made = plan(queue(gang(ranks=5, gpus=1), gang(ranks=4, gpus=1)), cluster)
    assert made.start == {JobId("job-1"): Allocation(ranks=((NodeId("b"), 4), (NodeId("a"), 1)))}, (
        "three are left on a"
    )
    wide = snapshot(a_node("a", gpus=4), a_node("b", gpus=2), running={"a": gang(gpus=1)})
    made = plan(queue(gang(gpus=4), gang(gpus=3), gang(gpus=2)), wide)
    assert made.start == {JobId("job-3"): on("b")}, "job-2 would sit on the place of job-1"


def test_a_big_job_is_not_starved_by_small_ones() -> None:
    """Small jobs that arrive for ever must not keep a big one from ever seeing its nodes empty."""
    nodes = (a_node("a", gpus=2), a_node("b", gpus=2))
    big = a_job(id="big", spec=a_spec(gpus=2))
    running: dict[str, Allocation] = {"small-0": on("a"), "small-1": on("b")}
    for number in range(2, 50):
        small = a_job(id=f"small-{number}", spec=a_spec(gpus=1))
        held = tuple((gang(gpus=1), allocation) for allocation in running.values())
        made = plan([big, small], Snapshot(nodes=nodes, running=held))
        if JobId("big") in made.start:
            return
        running |= {str(job_id): allocation for job_id, allocation in made.start.items()}
        running.pop(next(iter(running)))
    pytest.fail("48 small jobs passed and the big one still waits")


def test_a_kept_place_does_not_wander_with_what_runs() -> None:
    """A place that moves to wherever it is fullest never empties."""
    small = gang(gpus=1)
    for node in ("a", "b"):
        held = {"a": gang(ranks=2, gpus=1), "b": gang(ranks=2, gpus=1)} | {node: gang(gpus=1)}
        made = plan(
            queue(gang(gpus=2), small), snapshot(a_node("a", gpus=2), a_node("b", gpus=2), running=held)
        )
        assert (JobId("job-2") in made.start) == (node == "b"), "the place is on a, whatever runs there"


def test_where_places_lie_over_each_other_the_greater_is_kept() -> None:
    """The second who waits needs the node of the first too: what the first leaves is not for the third."""
    cluster = snapshot(a_node("a", gpus=8, cpus=64), running={"a": gang(ranks=4, gpus=1)})
    for cpus, starts in ((60, False), (59, True)):
        made = plan(queue(gang(gpus=5), gang(gpus=8, cpus=cpus), gang(cpus=1)), cluster)
        assert (JobId("job-3") in made.start) == starts, "60 CPUs are free"
        assert JobId("job-2") in made.blocked


def test_who_needs_no_gpu_does_not_wait_for_one() -> None:
    """A GPU server with a long line for its one GPU has CPUs to give."""
    cluster = snapshot(a_node("a", gpus=1, cpus=16), running={"a": gang(gpus=1)})
    made = plan(queue(*[gang(gpus=1)] * 5, gang(cpus=8), gang(cpus=8)), cluster)
    assert started(made) == ["job-6"], "one CPU is kept for the next with a GPU, so the second has 6 of 8"


def test_two_who_wait_keep_places_side_by_side() -> None:
    """Where both can be had at once, a third may take from neither."""
    cluster = snapshot(a_node("a", gpus=8), a_node("b", gpus=8), running={"b": gang(ranks=5, gpus=1)})
    first, second = gang(ranks=2, gpus=5), gang(ranks=2, gpus=3)
    assert started(plan(queue(first, gang(gpus=3)), cluster)) == ["job-2"], "8 on a, 5 of them kept"
    assert started(plan(queue(first, second, gang(gpus=3)), cluster)) == [], "5 and 3 of them kept"


def test_what_starts_beside_a_kept_place_is_taken_off_for_the_next() -> None:
    """Else the room beside it is given out twice."""
    cluster = snapshot(a_node("a", gpus=8), a_node("b", gpus=8), running={"b": gang(ranks=5, gpus=1)})
    first, beside, second = gang(ranks=2, gpus=5), gang(gpus=1), gang(ranks=2, gpus=2)
    assert started(plan(queue(first, beside, second, gang(gpus=1)), cluster)) == ["job-2"]


def test_a_job_that_fits_on_no_node_here_holds_nobody_up() -> None:
    """Its node may come back or never; the others must not wait for that."""
    made = plan(queue(gang(gpus=2), gang(gpus=1)), snapshot(a_node(gpus=1)))
    assert started(made) == ["job-2"]
    assert made.blocked[JobId("job-1")].code == "does_not_fit_here"


def test_equal_jobs_start_in_the_order_of_the_line() -> None:
    """First in, first out holds between equals even where places are kept."""
    cluster = snapshot(a_node("a", gpus=2), a_node("b", gpus=3), running={"a": gang(gpus=1)})
    made = plan(queue(gang(gpus=2), gang(gpus=3), gang(gpus=1), gang(gpus=1)), cluster)
    assert "job-4" not in made.start or "job-3" in made.start


class TestElastic:
    """A gang of from `min_ranks` to `max_ranks`: whatever number is chosen, all of them or none."""

    @pytest.mark.parametrize(("gpus", "ranks"), [(8, [6]), (6, [6]), (5, [5]), (2, [2]), (1, [])])
    def test_it_takes_as_many_ranks_as_there_is_room_for(self, gpus: int, ranks: list[int]) -> None:
        made = plan(queue(elastic(2, 6, gpus=1)), snapshot(a_node(gpus=gpus)))
        assert num_ranks(made) == ranks

    def test_more_ranks_on_several_nodes_are_better_than_fewer_on_one(self) -> None:
        cluster = snapshot(a_node("a", gpus=4), a_node("b", gpus=2))
        assert fit(elastic(2, 8, gpus=1), cluster) == Allocation(ranks=((NodeId("a"), 4), (NodeId("b"), 2)))

    def test_a_number_that_one_node_can_hold_is_not_spread(self) -> None:
        """The tightest such node, as for any gang."""
        cluster = snapshot(a_node("a", cpus=4, gpus=8), a_node("b", cpus=3))
        assert fit(elastic(1, 3), cluster) == on("b", 3)

    def test_whoever_is_first_may_take_all_it_can_use(self) -> None:
        made = plan(queue(elastic(1, 8, gpus=1), gang(gpus=1)), snapshot(a_node(gpus=8)))
        assert made.start == {JobId("job-1"): on("node-1", 8)}

    def test_it_takes_nothing_that_is_kept_for_somebody_ahead(self) -> None:
        """Three on a and four on b are free, and the one ahead waits for all eight."""
        nodes = (a_node("a", gpus=4), a_node("b", gpus=4), a_node("c", gpus=2))
        cluster = snapshot(*nodes, running={"a": gang(gpus=1)})
        made = plan(queue(gang(ranks=2, gpus=4), elastic(1, 8, gpus=1)), cluster)
        assert made.start == {JobId("job-2"): on("c", 2)}

    def test_one_that_waits_keeps_a_place_for_its_fewest_only(self) -> None:
        """A place for its most would hold up everybody behind it for ranks that it can do without."""
        six = gang(ranks=6, gpus=1)
        cluster = snapshot(a_node("a", gpus=8), a_node("b", gpus=8), running={"a": six, "b": six})
        made = plan(queue(elastic(5, 16, gpus=1), gang(ranks=3, gpus=1), gang(ranks=2, gpus=1)), cluster)
        assert made.start == {JobId("job-3"): on("b", 2)}, "two are free on each, and the place is on a"

    def test_so_does_one_whose_place_lies_over_another(self) -> None:
        """60 CPUs are free: its fewest need 20 of them, its most 40."""
        cluster = snapshot(a_node("a", gpus=8, cpus=64), running={"a": gang(ranks=4, gpus=1)})
        made = plan(queue(gang(gpus=5), elastic(1, 2, cpus=20, gpus=4), gang(cpus=30)), cluster)
        assert started(made) == ["job-3"]

    @given(st.lists(FIXED | ELASTIC, max_size=5), clusters())
    def test_it_starts_where_a_gang_of_the_largest_number_that_fits_would(
        self, gangs: list[Gang], cluster: Snapshot
    ) -> None:
        """The slow way: try a fixed gang of each number from the most to the fewest, then go on with it."""
        made = plan(queue(*gangs), cluster)
        plain: list[Gang] = []
        for index, wanted in enumerate(gangs, start=1):
            tries = [replace_ranks(wanted, ranks) for ranks in range(wanted.most, wanted.fewest - 1, -1)]
            starts = (one for one in tries if f"job-{index}" in plan(queue(*plain, one), cluster).start)
            plain.append(next(starts, tries[-1]))
        slow = plan(queue(*plain), cluster)
        assert made.start == slow.start
        assert codes(made) == codes(slow)

    @given(ELASTIC.filter(lambda wanted: wanted.gpus_per_rank in (0, 1, 2)), clusters())
    def test_the_first_in_line_gets_what_plain_division_says(self, wanted: Gang, cluster: Snapshot) -> None:
        """By exact fractions, node by node.  Whole GPUs only: fractions hide where they lie."""
        cluster = replace(
            cluster, running=tuple(run for run in cluster.running if run[0].gpus_per_rank in (0, 1, 2))
        )
        room = sum(ranks_by_division(wanted, node, cluster) for node in cluster.nodes)
        ranks = min(room, wanted.most)
        made = plan(queue(wanted), cluster)
        assert num_ranks(made) == ([ranks] if ranks >= wanted.fewest else [])

    @given(st.lists(FIXED, max_size=6), clusters())
    def test_one_whose_fewest_and_most_are_equal_is_like_any_other(
        self, gangs: list[Gang], cluster: Snapshot
    ) -> None:
        same = [elastic(one.num_ranks, one.num_ranks, one.cpus_per_rank, one.gpus_per_rank) for one in gangs]
        assert plan(queue(*same), cluster) == plan(queue(*gangs), cluster)


def replace_ranks(one: Gang, ranks: int) -> Gang:
    return gang(ranks, one.cpus_per_rank, one.gpus_per_rank)


def ranks_by_division(wanted: Gang, node: Node, cluster: Snapshot) -> int:
    """How many of its ranks fit on *node* beside what runs there."""
    here = [run for run, held in cluster.running for name in held.node_of_each_rank if name == node.id]
    cpus = Fraction(node.cpus) - sum(Fraction(run.cpus_per_rank) for run in here)
    if node.available_cpus is not None:
        cpus = min(cpus, Fraction(node.available_cpus))
    by_cpus = int(cpus // Fraction(wanted.cpus_per_rank))
    gpus = Fraction(node.gpus) - sum(Fraction(run.gpus_per_rank) for run in here)
    return min(by_cpus, int(gpus // Fraction(wanted.gpus_per_rank))) if wanted.gpus_per_rank else by_cpus


class TestDraining:
    """A node that is about to be taken away gets nothing new."""

    def test_nothing_is_placed_on_it(self) -> None:
        cluster = snapshot(a_node("a", gpus=1, draining=True), a_node("b", gpus=2))
        assert fit(gang(gpus=1), cluster) == on("b")
        assert fit(gang(gpus=3), cluster) is None
        assert num_ranks(plan(queue(elastic(1, 3, gpus=1)), cluster)) == [2]

    @given(st.lists(FIXED | ELASTIC, max_size=5), clusters(), st.sets(st.integers(0, 3)))
    def test_placement_is_as_if_it_were_gone(
        self, gangs: list[Gang], cluster: Snapshot, drained: set[int]
    ) -> None:
        jobs, nodes = queue(*gangs), list(enumerate(cluster.nodes))
        marked = tuple(replace(node, draining=index in drained) for index, node in nodes)
        left = tuple(node for index, node in nodes if index not in drained)
        made, gone = plan(jobs, replace(cluster, nodes=marked)), plan(jobs, replace(cluster, nodes=left))
        assert made.start == gone.start
        assert codes(made) == codes(gone)

    def test_what_is_free_on_it_is_not_called_free(self) -> None:
        """Else a user reads that four are free and wonders why the job does not start."""
        nodes = (a_node("a", cpus=2), a_node("b", cpus=4, draining=True))
        reason = plan(queue(gang(cpus=2)), snapshot(*nodes, running={"a": gang()})).blocked[JobId("job-1")]
        assert reason.code == "waiting_for_resources"
        assert reason.message == (
            "needs 1 rank with 2 CPU; no such rank fits now (1 of 2 CPUs free; a node is being drained)"
        )

    @pytest.mark.parametrize(
        ("wanted", "drained", "message"),
        [
            (
                gang(ranks=2, gpus=1),
                1,
                "needs 2 ranks at once with 1 CPU and 1 GPU each; a node is being drained; "
                "1 such rank fits on the others, even with nothing else running",
            ),
            (
                gang(gpus=1),
                2,
                "needs 1 rank with 1 CPU and 1 GPU; 2 nodes are being drained; "
                "no such rank fits on the others, even with nothing else running",
            ),
            (
                gang(ranks=3, gpus=1),
                1,
                "needs 3 ranks at once with 1 CPU and 1 GPU each; "
                "only 2 of them fit on the nodes here, even with nothing else running",
            ),
        ],
    )
    def test_who_is_kept_waiting_by_it_is_told(self, wanted: Gang, drained: int, message: str) -> None:
        """Only where it is the drain: who would not fit with those nodes either is told what there is."""
        nodes = [a_node(name, gpus=1, draining=index < drained) for index, name in enumerate("ab")]
        reason = plan(queue(wanted), snapshot(*nodes)).blocked[JobId("job-1")]
        assert (reason.code, reason.message) == ("does_not_fit_here", message)

    def test_a_job_that_only_fits_there_is_not_refused(self) -> None:
        """It may wait for the node that comes instead; whoever submits during maintenance is no fool."""
        assert feasible(gang(gpus=8), [a_node(gpus=8, draining=True), a_node()]) is None


class TestFractions:
    """A fraction of a GPU lies on one device; two halves of different devices are no whole GPU."""

    def test_two_devices_half_used_hold_no_whole_rank(self) -> None:
        cluster = snapshot(a_node("a", gpus=2), running={"a": gang(ranks=2, gpus=0.6)})
        assert fit(gang(gpus=0.8), cluster) is None
        assert fit(gang(ranks=2, gpus=0.4), cluster) == on("a", 2)

    def test_the_tightest_shared_device_is_filled_first(self) -> None:
        """Opening a whole GPU for a fraction would take it from a job that needs one."""
        cluster = snapshot(a_node("a", gpus=2), running={"a": gang(gpus=0.5)})
        made = plan(queue(gang(gpus=0.5), gang(gpus=1)), cluster)
        assert started(made) == ["job-1", "job-2"]
        held = tuple((gang(gpus=fraction), on("a")) for fraction in (0.4, 0.7))
        cluster = Snapshot(nodes=(a_node("a", gpus=2),), running=held)
        made = plan(queue(gang(gpus=0.3), gang(gpus=0.6)), cluster)
        assert started(made) == ["job-1", "job-2"], "0.6 and 0.3 are left"

    def test_a_whole_gpu_is_not_made_of_parts(self) -> None:
        """Three devices with 0.4 left are 1.2 in all, and no whole one."""
        cluster = snapshot(a_node("a", gpus=3), running={"a": gang(ranks=3, gpus=0.6)})
        assert fit(gang(gpus=1), cluster) is None

    def test_fractions_that_may_lie_in_any_way_are_left_alone(self) -> None:
        """Runs came and went: in the order of their start these four do not fit, and yet they are there."""
        held = tuple((gang(gpus=fraction), on("a")) for fraction in (0.3, 0.5, 0.5, 0.7))
        assert fit(gang(gpus=0.2), Snapshot(nodes=(a_node("a", gpus=2),), running=held)) is None
        assert fit(gang(), Snapshot(nodes=(a_node("a", gpus=2),), running=held)) == on("a")

    def test_three_thirds_share_one_device(self) -> None:
        """Counted in ten-thousandths, as Ray does: no rounding of binary fractions."""
        assert fit(gang(ranks=10, gpus=0.1, cpus=0.1), snapshot(a_node("a", cpus=1, gpus=1))) == on("a", 10)
        assert fit(gang(ranks=3, gpus=0.3333), snapshot(a_node("a", gpus=1))) == on("a", 3)
        assert fit(gang(ranks=11, gpus=0.1, cpus=0.1), snapshot(a_node("a", cpus=2, gpus=1))) is None

    def test_what_others_hold_of_a_gpu_is_not_a_whole_one(self) -> None:
        cluster = snapshot(a_node("a", gpus=1, available_gpus=0.7))
        assert fit(gang(gpus=1), cluster) is None
        assert fit(gang(gpus=0.7), cluster) == on("a")

    def test_a_place_kept_for_a_whole_gpu_is_not_nibbled_at(self) -> None:
        """A fraction that starts on the device that the one ahead waits for would hold it up."""
        cluster = snapshot(a_node("a", gpus=1), running={"a": gang(gpus=0.5)})
        assert started(plan(queue(gang(gpus=1), gang(gpus=0.5)), cluster)) == []

    @pytest.mark.parametrize("fraction", [0.00001, 0.99999])
    def test_a_fraction_finer_than_ray_counts_is_still_something(self, fraction: float) -> None:
        assert fit(gang(gpus=fraction), snapshot(a_node("a", gpus=1))) == on("a")
        assert fit(gang(gpus=fraction), snapshot(a_node("a"))) is None
        assert fit(gang(cpus=0.000001), snapshot(a_node("a"))) == on("a")
        assert fit(gang(ranks=2, cpus=0.000001), snapshot(a_node("a", cpus=0.0001))) is None


class TestReasons:
    """The sentences that a waiting user reads; DESIGN rule 6: from the call that decided."""

    def test_who_waits_for_resources_is_told_how_many_ranks_fit_now(self) -> None:
        cluster = snapshot(a_node("a", cpus=8, gpus=8), running={"a": gang(ranks=7, gpus=1)})
        reason = plan(queue(gang(ranks=2, gpus=1)), cluster).blocked[JobId("job-1")]
        assert reason.code == "waiting_for_resources"
        assert reason.message == (
            "needs 2 ranks at once with 1 CPU and 1 GPU each; "
            "1 such rank fits now (1 of 8 GPUs free; 1 of 8 CPUs free)"
        )

    def test_who_waits_for_its_fewest_ranks_is_told_so(self) -> None:
        cluster = snapshot(a_node("a", cpus=8, gpus=8), running={"a": gang(ranks=7, gpus=1)})
        made = plan(queue(elastic(2, 8, gpus=1), gang(gpus=1)), cluster)
        assert made.blocked[JobId("job-1")].message == (
            "needs 2 to 8 ranks at once with 1 CPU and 1 GPU each; "
            "1 such rank fits now (1 of 8 GPUs free; 1 of 8 CPUs free)"
        )
        assert made.blocked[JobId("job-2")].message == (
            "waits behind job name-1 (job-1), which needs 2 to 8 ranks at once with 1 CPU and 1 GPU each"
        )

    def test_room_for_its_fewest_that_is_kept_for_another_is_not_called_missing(self) -> None:
        cluster = snapshot(a_node("a", gpus=2), running={"a": gang(gpus=1)})
        reason = plan(queue(gang(gpus=2), elastic(1, 8, gpus=1)), cluster).blocked[JobId("job-2")]
        assert reason.code == "behind"

    def test_the_numbers_are_those_after_the_starts_of_the_pass(self) -> None:
        """Else a user reads that two are free and wonders why the job does not start."""
        cluster = snapshot(a_node("a", cpus=4), a_node("b", cpus=2))
        made = plan(queue(gang(cpus=3), gang(cpus=4), gang(cpus=2)), cluster)
        assert made.blocked[JobId("job-2")].message == (
            "needs 1 rank with 4 CPU; no such rank fits now (1 of 6 CPUs free, at most 1 on one node)"
        )

    def test_who_must_not_pass_is_told_behind_whom(self) -> None:
        cluster = snapshot(a_node("a", gpus=2), running={"a": gang(gpus=1)})
        reason = plan(queue(gang(gpus=2), gang(gpus=1)), cluster).blocked[JobId("job-2")]
        assert reason.code == "behind"
        assert reason.message == "waits behind job name-1 (job-1), which needs 1 rank with 1 CPU and 2 GPU"

    def test_the_one_named_is_the_one_who_keeps_the_room(self) -> None:
        """Naming the head of the line would send the user after the wrong job."""
        cluster = snapshot(
            a_node("a", cpus=2), a_node("b", gpus=2), running={"a": gang(), "b": gang(ranks=1, gpus=1)}
        )
        made = plan(queue(gang(cpus=2, gpus=2), gang(cpus=2), gang(gpus=1)), cluster)
        assert JobId("job-2") in made.start, "CPUs of b beside the place of job-1"
        made = plan(queue(gang(cpus=2), gang(cpus=7, gpus=2), gang(gpus=1)), cluster)
        assert "(job-2)" in made.blocked[JobId("job-3")].message
        busy = snapshot(a_node("a", cpus=8, gpus=1), running={"a": gang(gpus=1)})
        made = plan(queue(gang(gpus=1), gang(cpus=8), gang(cpus=2)), busy)
        assert "(job-2)" in made.blocked[JobId("job-3")].message, "job-1 keeps 1 CPU only"


class TestFeasible:
    """R8 and the door: what no node could ever give is refused before it queues."""

    @pytest.mark.parametrize(
        ("wanted", "nodes", "message"),
        [
            (
                gang(ranks=4, gpus=2),
                [a_node(gpus=1, cpus=4), a_node(gpus=0, cpus=64)],
                "needs 4 ranks at once with 1 CPU and 2 GPU each; the largest node here has 4 CPU and 1 GPU",
            ),
            (gang(cpus=16), [a_node(cpus=8)], "needs 1 rank with 16 CPU; the largest node here has 8 CPU"),
            (
                gang(ranks=5, gpus=1),
                [a_node("a", gpus=2), a_node("b", gpus=2)],
                "needs 5 ranks at once with 1 CPU and 1 GPU each; "
                "only 4 of them fit on the nodes here, even with nothing else running",
            ),
            (gang(), [], "needs 1 rank with 1 CPU; there is no live node"),
        ],
    )
    def test_what_can_never_fit_is_told_the_largest_there_is(
        self, wanted: Gang, nodes: list[Node], message: str
    ) -> None:
        reason = feasible(wanted, nodes)
        assert reason is not None
        assert (reason.code, reason.message) == ("does_not_fit_here", message)

    def test_an_elastic_gang_is_judged_by_its_fewest(self) -> None:
        """The door must not refuse what can run, only not as wide as it might."""
        nodes = [a_node("a", gpus=2), a_node("b", gpus=1)]
        assert feasible(elastic(3, 64, gpus=1), nodes) is None
        reason = feasible(elastic(4, 64, gpus=1), nodes)
        assert reason
        assert reason.message == (
            "needs 4 to 64 ranks at once with 1 CPU and 1 GPU each; "
            "only 3 of them fit on the nodes here, even with nothing else running"
        )

    def test_what_others_use_now_does_not_matter_at_the_door(self) -> None:
        """A full cluster is no reason to refuse: the job waits."""
        assert feasible(gang(gpus=2), [a_node(gpus=2, available_gpus=0.0, available_cpus=0.0)]) is None

    def test_nodes_that_do_not_exist_yet_may_share_an_id(self) -> None:
        """An autoscaler's node type comes as so many equal nodes."""
        assert feasible(gang(ranks=4, gpus=8), [a_node("gpu", gpus=8)] * 4) is None
