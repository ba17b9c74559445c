"""The Grafana dashboard and the Prometheus configuration name only metrics that coldtune exports."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from coldtune.tracking.prometheus import METRICS, STATES

DASHBOARDS = Path(__file__).parents[2] / "dashboards"
DEFINED = {metric.exported: set(metric.tags) for metric in METRICS}
_FUNCTIONS = {"sum", "max", "min", "by", "label_values"}

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not installed (Debian: apt-get install prometheus)"
)


def dashboard() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((DASHBOARDS / "grafana-coldtune.json").read_text())
    return content


def expressions() -> Iterator[str]:
    for panel in dashboard()["panels"]:
        yield from (target["expr"] for target in panel["targets"])


def queries() -> Iterator[str]:
    yield from (item["query"]["query"] for item in dashboard()["templating"]["list"] if item["type"] == "query")


def test_dashboard_expressions_use_defined_metrics_and_tags() -> None:
    seen = set()
    for expression in [*expressions(), *queries()]:
        bare = re.sub(r'"[^"]*"', '""', expression)
        names = set(re.findall(r"[a-zA-Z_:][\w:]*", bare)) - _FUNCTIONS
        metrics = names & set(DEFINED)
        assert len(metrics) == 1, expression
        assert names - metrics <= DEFINED[metrics.pop()], expression
        seen |= names & set(DEFINED)
    assert seen == set(DEFINED)


def test_dashboard_expressions_use_defined_states() -> None:
    used = {state for expression in expressions() for state in re.findall(r'state="(\w+)"', expression)}
    assert used
    assert used <= set(STATES)


def test_dashboard_variables_filter_every_expression() -> None:
    content = dashboard()
    variables = {item["name"]: item for item in content["templating"]["list"]}
    assert set(variables) == {"datasource", "study", "trial"}
    for expression in expressions():
        assert 'study=~"$study"' in expression
        assert ("trial" in expression.replace("coldtune_trials", "")) == ('trial=~"$trial"' in expression)
    sources = [panel["datasource"] for panel in content["panels"]]
    sources += [target["datasource"] for panel in content["panels"] for target in panel["targets"]]
    sources += [item["datasource"] for item in variables.values() if item["type"] == "query"]
    assert all(source == {"type": "prometheus", "uid": "${datasource}"} for source in sources)


def test_dashboard_panels_have_unique_ids_and_do_not_overlap() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {(place["x"] + i, place["y"] + j) for i in range(place["w"]) for j in range(place["h"])}
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells


def test_readme_of_dashboards_lists_every_metric() -> None:
    readme = (DASHBOARDS / "README.md").read_text()
    for metric in METRICS:
        assert f"| `{metric.exported}` | {', '.join(metric.tags)} |" in readme


def test_prometheus_config_reads_rays_discovery_file() -> None:
    (job,) = yaml.safe_load((DASHBOARDS / "prometheus.yml").read_text())["scrape_configs"]
    assert job["file_sd_configs"][0]["files"] == ["/tmp/ray/prom_metrics_service_discovery.json"]


@needs_promtool
def test_prometheus_config_passes_promtool() -> None:
    command = ["promtool", "check", "config", str(DASHBOARDS / "prometheus.yml")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


@needs_promtool
def test_dashboard_expressions_pass_promtool(tmp_path: Path) -> None:
    rules = [{"record": f"panel_{i}", "expr": expression} for i, expression in enumerate(expressions())]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    command = ["promtool", "check", "rules", str(tmp_path / "rules.yml")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"{len(rules)} rules found" in result.stdout
