"""The dashboard and the alerts in `deploy/`: what they ask Prometheus for is what the scheduler measures."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from scheduler.core.model import Cause, Ending, Phase, Status
from scheduler.engine.telemetry import ALL
from tests.programs import found

ROOT = Path(__file__).parents[2]
ALERTS = ROOT / "deploy" / "prometheus" / "alerts.yml"
DASHBOARD = ROOT / "deploy" / "grafana" / "training-scheduler.json"
OPERATIONS = ROOT / "docs" / "operations.md"
SERIES = {name: measure for measure in ALL for name in measure.series}
KNOWN = {
    "status": set(Status),
    "phase": set(Phase),
    "ending": set(Ending),
    "cause": {*Cause, "nobody"},
    "start": {"warm", "cold"},
    "state": {"held", "free", "other", "live", "draining", "set_aside"},
    "loop": {
        "tick",
        "recurring",
        "observe",
        "liveness",
        "relay",
        "vouch",
        "inbox",
        "reconcile",
        "webhook",
        "telemetry",
        "pool",
    },
}


def alerts() -> list[dict[str, Any]]:
    groups = yaml.safe_load(ALERTS.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    return [panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel["type"] != "row"]


def queries() -> list[str]:
    """Every one, with Grafana's own variables filled in."""
    of_panels = [target["expr"] for panel in panels() for target in panel["targets"]]
    filled = (query.replace("$__rate_interval", "1m").replace("$cluster", "a") for query in of_panels)
    return [*(rule["expr"] for rule in alerts()), *filled]


def selectors(node: Any) -> list[promql_parser.VectorSelector]:
    """Every place in a parsed query where a series is asked for."""
    if isinstance(node, promql_parser.VectorSelector):
        return [node]
    if isinstance(node, promql_parser.Call):
        return [found for argument in node.args for found in selectors(argument)]
    inner = (getattr(node, name, None) for name in ("expr", "lhs", "rhs", "vector_selector", "param"))
    return [found for part in inner if part is not None for found in selectors(part)]


@pytest.mark.parametrize("query", queries())
def test_each_query_asks_for_series_and_tags_that_are_exported(query: str) -> None:
    """A misspelt metric is no error in Prometheus: it is an alert that never fires."""
    asked = selectors(promql_parser.parse(query))
    assert asked, query
    for selector in asked:
        measure = SERIES[str(selector.name)]
        for matcher in selector.matchers.matchers:
            assert matcher.name in {*measure.tags, "cluster"}, f"{measure.name} has no tag {matcher.name}"
            assert set(matcher.value.split("|")) <= KNOWN.get(matcher.name, {matcher.value}), query


@pytest.mark.parametrize("query", queries())
def test_each_query_gathers_by_tags_that_its_series_have(query: str) -> None:
    """After a restart two processes may tell the same gauge: without `max` or `sum` both would be drawn."""
    by = {tag.strip() for tags in re.findall(r"\bby \(([^)]*)\)", query) for tag in tags.split(",")}
    tags = {tag for one in selectors(promql_parser.parse(query)) for tag in SERIES[str(one.name)].tags}
    assert by <= tags | {"cluster", "le"}
    assert re.search(r"\b(max|sum|absent_over_time)\b", query), query


def test_every_measure_is_on_the_dashboard_or_in_an_alert() -> None:
    """What nobody looks at need not be measured."""
    used = {str(one.name) for query in queries() for one in selectors(promql_parser.parse(query))}
    assert [measure.name for measure in ALL if not used & set(measure.series)] == []


def test_the_guide_lists_every_measure_as_it_is() -> None:
    """And none that is gone."""
    listed = [line for line in OPERATIONS.read_text().splitlines() if line.startswith("| `scheduler_")]
    assert listed == [
        f"| `{m.name}` | {m.kind} | {', '.join(f'`{tag}`' for tag in m.tags)} | {m.text} |" for m in ALL
    ]


def test_each_alert_says_what_it_means_and_is_explained_in_the_guide() -> None:
    """Whoever is woken has two sentences and a place to read on."""
    guide = OPERATIONS.read_text()
    for rule in alerts():
        assert rule["labels"]["severity"] in ("critical", "warning"), rule
        assert set(rule["annotations"]) == {"summary", "description"}, rule
        assert f"`{rule['alert']}`" in guide, f"{rule['alert']} is not in {OPERATIONS.name}"


def test_each_panel_has_a_name_a_reason_and_a_place_of_its_own() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert panel["title"] and panel["description"].endswith("."), panel
        assert place["x"] + place["w"] <= 24, panel["title"]
        assert not cells & taken, f"{panel['title']} covers another panel"
        taken |= cells
    assert len({panel["id"] for panel in panels()}) == len(panels())


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "config", "deploy/prometheus/prometheus.yml"),
        ("check", "rules", "deploy/prometheus/alerts.yml"),
        ("test", "rules", "deploy/prometheus/alerts_test.yml"),
    ],
    ids=" ".join,
)
def test_prometheus_own_tool_finds_no_fault(arguments: tuple[str, ...]) -> None:
    """It also plays through what each alert must do."""
    promtool = found("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed; make install-prometheus")
    ran = subprocess.run([promtool, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stdout + ran.stderr
