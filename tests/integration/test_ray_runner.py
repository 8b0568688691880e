"""The real runner, on the session's Ray, held to the same contract as the fake."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import ray

from scheduler.core.model import NodeId
from scheduler.engine.spec_validation import function_of
from scheduler.runs.ray_runner import RayRunner
from scheduler.server.actor import RUN_ENVIRONMENT
from tests.conftest import Cluster
from tests.contract.suites.runner_contract import RunnerContract, a_start, run_of

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module", autouse=True)
def driver(cluster: Cluster) -> Iterator[None]:
    ray.init(address=cluster.info.ray_address, namespace="contract", log_to_driver=False)
    yield
    ray.shutdown()


class TestRayRunner(RunnerContract):
    @pytest.fixture
    def runner(self, cluster: Cluster) -> RayRunner:
        return RayRunner(
            storage=cluster.settings.storage_path,
            checkpoint_url=cluster.settings.checkpoints_at,
            namespace="contract",
            env_vars=RUN_ENVIRONMENT,
            function_of=function_of,
            observe_timeout_s=5.0,
            stop_grace_s=5.0,
        )

    @pytest.fixture
    def node(self) -> NodeId:
        return NodeId(ray.get_runtime_context().get_node_id())

    async def test_a_loop_that_only_reports_to_ray_train_has_curves_and_progress(
        self, runner: RayRunner, node: NodeId
    ) -> None:
        """Most loops that people bring know nothing of progress files."""
        start = a_start(node, "tests.loops:only_reports", steps=3)
        await runner.start(start)
        outcome = await runner.wait(run_of(start))
        assert outcome.progress == {"step": 3, "accuracy": 0.3}
        said = await runner.metrics(start.job_id, 100)
        assert (said.step, said.series) == ([1, 2, 3], {"accuracy": [0.1, 0.2, 0.3]})
