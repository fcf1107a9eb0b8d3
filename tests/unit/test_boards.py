"""The dashboards: Grafana's dashboard-linter's rules, and what ties them to metrics, rules and runbook."""

from __future__ import annotations

import json
import re
import subprocess
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from monitoring.dashboards import DAGS, Panel, boards, filled_in
from scripts import board_pictures, docs
from twofold import metrics

ROOT = Path(__file__).parents[2]
RULES = ROOT / "monitoring" / "prometheus" / "rules"
UNITS = {"short", "none", "s", "ms", "bytes", "Bps", "rps", "cps", "reqps", "percentunit", "dateTimeAsIso", "locale"}
"""Of those that Grafana's valueFormats has, the ones used here: a misspelt one shows bare numbers."""
DASHBOARDS = [json.loads(text) for path, text in docs.generated().items() if path.suffix == ".json"]
SHOWN: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    f"{board['uid']}-{panel['title']}": (board, panel)
    for board in DASHBOARDS
    for panel in board["panels"]
    if panel["type"] != "row"
}
QUERIES: dict[str, dict[str, Any]] = {
    f"{name}-{target['refId']}": target for name, (_, panel) in SHOWN.items() for target in panel["targets"]
}
PANELS = [pytest.param(*shown, id=name) for name, shown in SHOWN.items()]
TARGETS = [pytest.param(target, id=name) for name, target in QUERIES.items()]


@cache
def rules() -> tuple[dict[str, Any], ...]:
    found = (group for path in RULES.glob("*.yml") for group in yaml.safe_load(path.read_text())["groups"])
    return tuple(rule for group in found for rule in group["rules"])


def test_files_are_as_made() -> None:
    assert CliRunner().invoke(docs.main, ["--check"]).exit_code == 0


def test_six_boards_with_ids_that_alerts_link_to() -> None:
    assert [board.title[0] for board in boards()] == list("123456")
    found = [re.match(r"/d/([\w-]+)", rule["annotations"]["dashboard"]) for rule in rules() if "alert" in rule]
    linked = {match[1] for match in found if match}
    assert None not in found
    assert linked <= {board.uid for board in boards()}


@pytest.mark.parametrize("board", DASHBOARDS, ids=lambda board: board["uid"])
def test_boards_are_wired_alike(board: dict[str, Any]) -> None:
    variables = {variable["name"]: variable for variable in board["templating"]["list"]}
    assert variables["datasource"]["query"] == "prometheus"
    assert variables["pipeline"]["refresh"] == 2, "a pipeline that is added shows with the next look"
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(board))) - {"__rate_interval", "__range", "__value", "__all"}
    assert used == set(variables)
    assert {"Alerts", "DAG runs", "Failed DAG runs"} < {note["name"] for note in board["annotations"]["list"]}
    assert [link for link in board["links"] if link["type"] == "dashboards" and link["includeVars"]]
    assert not board["editable"]
    titles = [panel["title"] for panel in board["panels"]]
    assert len(titles) == len(set(titles))


@pytest.mark.parametrize("board", DASHBOARDS, ids=lambda board: board["uid"])
def test_panels_lie_side_by_side(board: dict[str, Any]) -> None:
    places = [panel["gridPos"] for panel in board["panels"]]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    for a, b in combinations(places, 2):
        beside = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        assert beside or a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]


@pytest.mark.parametrize(("board", "panel"), PANELS)
def test_every_panel_explains_itself(board: dict[str, Any], panel: dict[str, Any]) -> None:
    assert panel["title"]
    assert panel["description"].endswith(".")
    assert panel["datasource"]["uid"] == "${datasource}"
    assert panel["targets"]
    defaults = panel["fieldConfig"]["defaults"]
    assert defaults["unit"] in UNITS
    first, *steps = [step["value"] for step in defaults["thresholds"]["steps"]]
    assert first is None
    assert steps == sorted(set(steps))
    for link in panel["links"]:
        assert (ROOT / "docs" / "runbooks" / f"{link['url'].rpartition('/')[2]}.md").is_file()


@pytest.mark.parametrize("target", TARGETS)
def test_every_query_reads_what_there_is(target: dict[str, Any]) -> None:
    expr = target["expr"]
    assert target["datasource"]["uid"] == "${datasource}"
    sent = {metric.name + end for metric in metrics.ALL for end in ("", "_bucket", "_sum", "_count")}
    assert not set(re.findall(r"\btwofold_\w+", expr)) - sent
    assert not set(re.findall(r"\b\w+:\w+(?::\w+)?", expr)) - {rule["record"] for rule in rules() if "record" in rule}
    assert not re.findall(r"\brate\(\w+(?:\{[^}]*\})?\[(?!\$__rate_interval|\$__range|1m\])", expr)
    for name, labels in re.findall(r"\b(twofold_\w+|pipeline\w*:[\w:]+)(\{[^}]*\})?", expr):
        assert 'pipeline=~"$pipeline"' in labels or name == "pipeline:disk_free:ratio"


@pytest.mark.parametrize("target", TARGETS)
def test_legends_name_labels_that_are_left(target: dict[str, Any]) -> None:
    if kept := re.findall(r"\b(?:sum|max|min|avg) by \(([\w, ]+)\)", target["expr"]):
        joined = {"outcome"} if "group_left" in target["expr"] else set()
        assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= set(kept[0].split(", ")) | joined


def test_counters_are_shown_as_rates_or_gains() -> None:
    bare = [
        target["expr"]
        for target in QUERIES.values()
        if re.search(r"_total\b", target["expr"]) and not re.search(r"rate\(|increase|offset", target["expr"])
    ]
    assert all("since the exporter's start" in description_of(expr) for expr in bare)


def description_of(expr: str) -> str:
    panels = (panel for _, panel in SHOWN.values())
    return str(
        next(panel for panel in panels if expr in {target["expr"] for target in panel["targets"]})["description"]
    )


def test_colours_become_thresholds() -> None:
    age = Panel(title="Age", text="How old.", unit="s", queries={"": "x"}, colors=("green", 60, "orange", 300, "red"))
    assert age.thresholds == ((None, "green"), (60, "orange"), (300, "red"))


def test_what_is_drawn_without_grafana_is_data() -> None:
    hostile = "</script><b>"
    assert hostile not in board_pictures.document({"title": hostile})
    assert board_pictures.named("{{pipeline}} late {{query}}", {"pipeline": hostile}) == f"{hostile} late "


def test_promtool_takes_every_query(tmp_path: Path) -> None:
    exprs = {filled_in(target["expr"], "flights", "20s", "15m") for target in QUERIES.values()}
    found = [{"record": f"query:{number}", "expr": expr} for number, expr in enumerate(sorted(exprs))]
    path = tmp_path / "queries.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": found}]}))
    subprocess.run(["promtool", "check", "rules", path], check=True)


def test_a_changed_file_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docs, "DASHBOARDS", tmp_path)
    assert CliRunner().invoke(docs.main, []).exit_code == 0
    assert CliRunner().invoke(docs.main, ["--check"]).exit_code == 0
    (tmp_path / "twofold-speed.json").write_text("{}")
    (tmp_path / "left-over.json").write_text("{}")
    told = CliRunner().invoke(docs.main, ["--check"])
    assert told.exit_code == 1
    assert "left-over.json, twofold-speed.json" in told.stderr


def test_a_pipeline_is_not_taken_for_one_whose_name_begins_alike() -> None:
    names = [f"flights_{path.name.removesuffix('_dag.py')}" for path in (ROOT / "dags").glob("*_dag.py")]
    pattern = re.compile(DAGS.replace("$pipeline", "flights"))
    assert all(map(pattern.fullmatch, names)) and len(names) == DAGS.count("|") + 1
    assert not pattern.fullmatch("flights_eu_batch")
    assert "($pipeline)_.+" not in json.dumps(DASHBOARDS)


def test_boards_do_not_take_an_old_counter_for_a_new_one() -> None:
    """Where a scrape failed a window ago, nothing is there."""
    assert not [expr for expr in (target["expr"] for target in QUERIES.values()) if re.search(r"\boffset\b", expr)]
