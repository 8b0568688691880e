"""What Prometheus and the Ray dashboard find on a real cluster."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from scheduler.engine.telemetry import ALL
from tests.conftest import ROOT, Cluster, free_port, wait_until
from tests.programs import found

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def jobs(cluster: Cluster) -> Iterator[dict[str, str]]:
    """One that completes, one that fails, and one that runs until it is told to end."""
    ids = {
        "completes": cluster.submit(
            "torch_ddp",
            {"steps": 400, "checkpoint_every_steps": 200},
            name="completes-in-secret",
            user="ann.in.secret",
        ),
        "fails": cluster.submit("crash", {"at": 2}, name="fails"),
        "runs": cluster.submit("ignores_stop", {}, name="runs on\nand on"),
    }
    cluster.wait_for(ids["completes"], "completed")
    cluster.wait_for(ids["fails"], "failed")
    cluster.wait_for_step(ids["runs"], 1)
    yield ids
    cluster.client.cancel(ids["runs"])


@pytest.fixture
def prometheus(cluster: Cluster, tmp_path: Path) -> Iterator[str]:
    """A real one with our own files, told only where this Ray keeps its list, and to fetch more often."""
    program = found("prometheus")
    if program is None:
        pytest.skip("prometheus is not installed; make install-prometheus")
    given = (ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text()
    told = given.replace("/tmp/ray", cluster.info.ray_temp_dir).replace("_interval: 15s", "_interval: 2s")
    (tmp_path / "prometheus.yml").write_text(told)
    shutil.copy(ROOT / "deploy" / "prometheus" / "alerts.yml", tmp_path)
    address = f"127.0.0.1:{free_port()}"
    arguments = {
        "config.file": tmp_path / "prometheus.yml",
        "storage.tsdb.path": tmp_path,
        "web.listen-address": address,
    }
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [program, *(f"--{name}={value}" for name, value in arguments.items())], stdout=log, stderr=log
        )
    yield f"http://{address}/api/v1"
    process.terminate()
    process.wait(10)


def asked(prometheus: str, query: str) -> list[Any]:
    """What Prometheus answers; nothing while it is still starting."""
    try:
        response = httpx.get(f"{prometheus}/query", params={"query": query}, timeout=30)
    except httpx.HTTPError:
        return []
    if response.status_code == 503:
        return []
    answer = response.json()
    assert answer["status"] == "success", (query, answer)
    return answer["data"]["result"]


def scrape(cluster: Cluster) -> dict[str, list[tuple[dict[str, str], float]]]:
    """As Prometheus does it: series by name, each with its tags and its value."""
    text = httpx.get(cluster.info.metrics_url, timeout=30).text
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((dict(sample.labels), sample.value))
    return found


def value(cluster: Cluster, name: str, **tags: str) -> float:
    ours = tags | {"cluster": cluster.settings.cluster}
    series = scrape(cluster).get(f"ray_scheduler_{name}", [])
    return sum(number for labels, number in series if ours.items() <= labels.items())


def of_state(cluster: Cluster, kind: str) -> list[dict[str, Any]]:
    """What the Ray dashboard lists."""
    answer = httpx.get(f"{cluster.info.dashboard_url}/api/v0/{kind}?detail=1&limit=1000", timeout=30).json()
    return answer["data"]["result"]["result"]


def test_everything_that_is_measured_is_exported(cluster: Cluster, jobs: dict[str, str]) -> None:
    """D6: dashboards and alerts are checked against this list of measures elsewhere; here it is the real thing."""
    wanted = {name for measure in ALL for name in measure.series}
    wait_until(
        lambda: wanted <= set(scrape(cluster)),
        within_s=60,
        what=f"all are exported; at first these were missing: {wanted - set(scrape(cluster))}",
    )


def test_the_numbers_are_those_of_the_jobs(cluster: Cluster, jobs: dict[str, str]) -> None:
    """Others run on this cluster too: at least ours are counted."""

    def are_counted() -> bool:
        return (
            value(cluster, "jobs", status="completed") >= 1
            and value(cluster, "jobs", status="running") >= 1
            and value(cluster, "runs_ended_total", ending="completed", cause="nobody") >= 1
            and value(cluster, "run_failures_total", cause="user", code="loop_failed") >= 1
            and value(cluster, "cpus", state="held") >= 1
        )

    wait_until(are_counted, within_s=60, what="the jobs are counted")
    assert value(cluster, "start_seconds_count") >= 1
    assert value(cluster, "loop_passes_total", loop="tick") > 0
    assert value(cluster, "nodes", state="live") == 1


def test_a_real_prometheus_draws_the_dashboard(
    cluster: Cluster, jobs: dict[str, str], prometheus: str
) -> None:
    """D6: found through Ray's own list of nodes; every panel has something to show, and nobody is woken."""
    dashboard = json.loads((ROOT / "deploy" / "grafana" / "training-scheduler.json").read_text())
    ours = cluster.settings.cluster
    queries = {
        target["expr"].replace("$cluster", ours).replace("$__rate_interval", "1m")
        for panel in dashboard["panels"]
        for target in panel.get("targets", ())
    }

    def empty() -> list[str]:
        return [query for query in queries if not asked(prometheus, query)]

    wait_until(
        lambda: not empty(),
        within_s=90,
        what=f"each panel shows something; at first these were empty: {empty()}",
    )
    woken = asked(prometheus, 'ALERTS{alertstate="firing",severity="critical"}')
    assert [alert["metric"]["alertname"] for alert in woken] == []


def test_metrics_tell_nothing_that_a_user_wrote(cluster: Cluster, jobs: dict[str, str]) -> None:
    """Ray asks nobody for a token there, and listens on every address of the machine."""
    text = httpx.get(cluster.info.metrics_url, timeout=30).text
    assert "completes-in-secret" not in text
    assert "ann.in.secret" not in text
    ours = [line for line in text.splitlines() if line.startswith("ray_scheduler_")]
    assert ours
    assert [line for line in ours if any(job_id in line for job_id in jobs.values())] == []


def test_prometheus_finds_the_node_where_the_guide_says(cluster: Cluster) -> None:
    """The file in deploy/prometheus/prometheus.yml; Ray names the machine there by another of its addresses."""
    file = Path(cluster.info.ray_temp_dir) / "prom_metrics_service_discovery.json"
    targets = [target for group in json.loads(file.read_text()) for target in group["targets"]]
    assert f":{httpx.URL(cluster.info.metrics_url).port}" in {f":{one.rpartition(':')[2]}" for one in targets}


def test_the_ray_dashboard_names_actors_and_placement_groups(cluster: Cluster, jobs: dict[str, str]) -> None:
    """D5: whoever looks there finds the run by its id, and by the name that its owner gave it."""
    run = f"run-{jobs['runs']}-1"
    actors = {actor["name"]: actor for actor in of_state(cluster, "actors")}
    assert actors[run]["class_name"] == "RunActor"
    assert actors[run]["repr_name"] == "runs on and on, attempt 1"
    assert actors["scheduler"]["repr_name"] == f"scheduler of {cluster.settings.cluster}"
    groups = [group for group in of_state(cluster, "placement_groups") if group["name"] == run]
    assert [group["state"] for group in groups] == ["CREATED"]
