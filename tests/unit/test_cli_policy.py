"""`scheduler policy try`: a trace through two policies, and a log from which anybody comes to the same numbers (S12)."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from command_line import run

TRACE = """submit_s,duration_s,num_gpus,project,user,gpus_per_rank,priority
0,36000,8,vision,ann,8,0
10,600,1,speech,bob,,0
20,60,8,vision,ann,,0
30,7200,16,text,chen,4,0
40,900,0.5,speech,bob,,5
"""
GPUS = {"node-0000": 8.0, "node-0001": 8.0}


@pytest.fixture
def trace(tmp_path: Path) -> str:
    path = tmp_path / "trace.csv"
    path.write_text(TRACE)
    return str(path)


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_both_policies_are_told_in_numbers(trace: str) -> None:
    """The new one is told beside that of today, for all jobs and for each project."""
    said = run("policy", "try", "--trace", trace, "--nodes", "2x8", "--json").document
    assert said.keys() == {"today", "new", "notes"}
    for one in (said["today"], said["new"]):
        assert one["jobs"] == 5
        assert one["projects"].keys() == {"vision", "speech", "text"}
        assert one["pass_ms"].keys() == {"p50", "p99"}
    assert said["today"]["preemptions"] == 0
    assert said["new"]["avg_jct_s"] < said["today"]["avg_jct_s"]
    assert said["new"]["longest_wait_s"] < said["today"]["longest_wait_s"]


def test_the_log_alone_tells_the_same(trace: str, tmp_path: Path) -> None:
    """An auditor needs nothing else: no node holds more than it has, and the averages come out again."""
    log = tmp_path / "log.jsonl"
    said = run("policy", "try", "--trace", trace, "--nodes", "2x8", "--json", "--log", str(log)).document[
        "new"
    ]
    gpus = [8, 1, 1, 4, 0.5]  # of one rank, by the number of the job
    submitted = [0, 10, 20, 30, 40]
    held: defaultdict[str, float] = defaultdict(float)
    ended: dict[int, float] = {}
    for line in lines(log):
        sign = 1 if line["what"] == "start" else -1
        for node, ranks in line["allocation"]["ranks"]:
            held[node] += sign * ranks * gpus[line["number"]]
            assert -1e-9 < held[node] <= GPUS[node]
        if line["what"] == "end":
            ended[line["number"]] = line["at_s"]
        if line["what"] == "stop":
            assert f"{line['number']:06d}" in line["reckoning"]["chosen"]
    took = [ended[number] - submitted[number] for number in range(5)]
    assert sum(took) / 5 == pytest.approx(said["avg_jct_s"])
    assert sum(line["what"] == "stop" for line in lines(log)) == said["preemptions"]


def test_a_rule_and_a_share_change_what_happens(trace: str) -> None:
    never = run(
        "policy", "try", "--trace", trace, "--nodes", "2x8", "--json", "--set", "preempt=never"
    ).document["new"]
    assert never["preemptions"] == 0
    limited = run(
        "policy", "try", "--trace", trace, "--nodes", "2x8", "--json", "--share", "vision:limit=8"
    ).document["new"]
    assert limited["projects"]["vision"]["avg_jct_s"] != never["projects"]["vision"]["avg_jct_s"]


def test_it_is_a_table_for_people(trace: str) -> None:
    out = run("policy", "try", "--trace", trace, "--nodes", "2x8").out
    assert "longest wait" in out
    assert "GPU hours of vision" in out


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--nodes", "8"), "write it as 48x8,1x6"),
        (("--nodes", "1x8"), "job 4 of .* needs 4 ranks .* could never hold"),
        (("--nodes", "2x8", "--set", "wroth=2"), "there is no such rule; known are .*worth"),
        (("--nodes", "2x8", "--set", "preempt=often"), "--set preempt: Input should be 'never'"),
        (("--nodes", "2x8", "--share", "vision=2"), "write it as vision:weight=2"),
    ],
)
def test_what_is_wrong_is_said(trace: str, args: tuple[str, ...], words: str) -> None:
    ran = run("policy", "try", "--trace", trace, *args)
    assert ran.code == 2
    assert re.search(words, " ".join(ran.err.split())), ran.err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("submit_s,duration_s,num_gpus\n0,x,1\n", "line 2: duration_s: Input should be a valid number"),
        ("submit_s,duration_s,num_gpus\n0,0,1\n", "line 2: duration_s: Input should be greater than 0"),
        ("submit_s,num_gpus\n0,1\n", "line 2: duration_s"),
        ("submit_s,duration_s,num_gpus\n", "has no jobs"),
    ],
)
def test_a_trace_that_is_none_is_refused_with_line_and_column(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(text)
    ran = run("policy", "try", "--trace", str(path), "--nodes", "1x8")
    assert ran.code == 2
    assert words in " ".join(ran.err.split()), ran.err
    assert run("policy", "try", "--trace", str(tmp_path / "none.csv"), "--nodes", "1x8").code == 2
