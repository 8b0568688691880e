"""The fake keeps the promises of the real runner, so that tests on it mean something."""

from __future__ import annotations

import pytest

from scheduler.core.model import Json, NodeId
from scheduler.ports import Run, Runner
from scheduler.testing.fake_runner import COMPLETED, FakeRunner
from tests.contract.suites.runner_contract import RunnerContract


class TestFakeRunner(RunnerContract):
    @pytest.fixture
    def runner(self) -> FakeRunner:
        return FakeRunner()

    @pytest.fixture
    def node(self, runner: FakeRunner) -> NodeId:
        return runner.nodes_now[0].id

    def let_end(self, runner: Runner, run: Run) -> None:
        assert isinstance(runner, FakeRunner)
        runner.end(run, COMPLETED)

    def let_say(self, runner: Runner, run: Run, *lines: Json) -> None:
        assert isinstance(runner, FakeRunner)
        runner.said[run] = list(lines)
