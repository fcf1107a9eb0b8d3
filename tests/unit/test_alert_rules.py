"""Alert rules: promtool's own tests pass, every alert is tested in full, and leads to a page that says what to do."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from twofold import metrics

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "monitoring" / "prometheus"
RULES = sorted((PROMETHEUS / "rules").glob("*.yml"))
TESTS = sorted((PROMETHEUS / "tests").glob("*.yml"))
DOCS = ROOT / "docs" / "monitoring.md"
HEADINGS = ["What it means", "How to look", "How to fix", "How to check"]


def rules() -> Iterator[dict[str, Any]]:
    for path in RULES:
        for group in yaml.safe_load(path.read_text())["groups"]:
            yield from group["rules"]


ALERTS = [rule for rule in rules() if "alert" in rule]
NAMES = sorted({rule["alert"] for rule in ALERTS})


def seconds(duration: str) -> int:
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    return sum(int(number) * units[unit] for number, unit in re.findall(r"(\d+)([smhd])", duration))


SCENARIOS = [scenario for path in TESTS for scenario in yaml.safe_load(path.read_text())["tests"]]


def looks(alert: str) -> Iterator[list[bool]]:
    """For each scenario: whether the alert is to fire, look by look."""
    for scenario in SCENARIOS:
        cases = [case for case in scenario.get("alert_rule_test", ()) if case["alertname"] == alert]
        yield [bool(case.get("exp_alerts")) for case in sorted(cases, key=lambda case: seconds(case["eval_time"]))]


def test_promtool_takes_the_rules_and_their_tests_pass() -> None:
    subprocess.run(["promtool", "check", "rules", *RULES], check=True)
    # It looks for garbage a quarter of the time otherwise.
    subprocess.run(["promtool", "test", "rules", *TESTS], env={**os.environ, "GOGC": "400"}, check=True)


@pytest.mark.parametrize("alert", NAMES)
def test_every_alert_is_seen_quiet_then_firing_then_resolved(alert: str) -> None:
    assert any(re.search("q+f+q+", "".join("qf"[fires] for fires in look)) for look in looks(alert))


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_every_alert_says_what_is_lost_and_leads_to_its_page(rule: dict[str, Any]) -> None:
    labels, notes = rule["labels"], rule["annotations"]
    assert labels["severity"] in ("critical", "warning")
    assert re.fullmatch(r"[A-Z][^.]+\.", re.sub(r"\{\{.+?\}\}", "It", notes["loss"])), "one sentence"
    assert notes["summary"].endswith(".")
    page = ROOT / notes["runbook"]
    assert notes["runbook"] == f"docs/runbooks/{labels['runbook']}.md"
    assert re.findall(r"^## (.+)$", page.read_text(), re.MULTILINE) == HEADINGS


def test_rules_read_only_metrics_that_are_sent() -> None:
    sent = {metric.name for metric in metrics.ALL}
    read = {name for rule in rules() for name in re.findall(r"\btwofold_\w+", rule["expr"])}
    assert read
    assert not read - sent


def test_a_stall_is_told_within_40_seconds() -> None:
    """Threshold and `for` together; for the default trigger of five seconds."""
    told = {}
    for rule in ALERTS:
        if rule["alert"] in ("StreamDown", "StreamStalled", "ProducerDown"):
            [threshold] = re.findall(r"_age:seconds > (\d+)", rule["expr"])
            told[rule["alert"]] = int(threshold) + seconds(rule["for"]) + 5 * ("trigger" in rule["expr"])
    assert len(told) == 3
    assert max(told.values()) < 40


def test_the_page_on_monitoring_lists_every_alert() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \|.*\(runbooks/([\w-]+)\.md\) \|$", DOCS.read_text(), re.MULTILINE)
    labels = {rule["alert"]: rule["labels"] for rule in ALERTS}
    assert sorted(rows) == sorted((name, label["severity"], label["runbook"]) for name, label in labels.items())
