"""`scheduler nodes` against a scheduler that is served (S6)."""

from __future__ import annotations

from command_line import run
from served import Served


def test_a_node_is_set_aside_shown_and_let_back(served: Served) -> None:
    assert run("nodes").out == "node-1: 4 CPUs, 0 GPUs\n"
    said = run("nodes", "set-aside", "node-1", "--why", "fan is loud").out
    assert said.splitlines()[0] == "node-1: 4 CPUs, 0 GPUs"
    assert said.splitlines()[1].endswith(": fan is loud")
    assert run("nodes").out == said
    assert "set aside: fan is loud" in run("health").out
    aside = run("nodes", "--json").document["nodes"][0]["set_aside"]
    assert (aside["why"], aside["losses"]) == ("fan is loud", [])
    assert run("nodes", "allow", "node-1").out == "node-1: 4 CPUs, 0 GPUs\n"


def test_what_is_no_node_is_said_so(served: Served) -> None:
    ran = run("nodes", "allow", "elsewhere")
    assert (ran.code, "no node 'elsewhere' is known here" in ran.err) == (3, True)
    assert "without `/`" in run("nodes", "allow", "a/b").err
