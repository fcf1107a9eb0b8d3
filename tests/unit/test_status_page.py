"""The status page without Airflow: its files, the runbook as HTML, and what is said of DAGs."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from twofold.definition.model import Schedule
from twofold.settings import Settings
from twofold_airflow.page import content
from twofold_airflow.page.dags import Dag, DagRun, dag_problems

ROOT = Path(__file__).parents[2]
WEB = ROOT / "plugins" / "twofold_airflow" / "page" / "web"


def test_every_file_of_the_page_is_served_and_no_other() -> None:
    own = {path.name for path in WEB.iterdir()}
    assert content.FILES.keys() - own == {"chart.js"}
    assert {content.FILES[name] for name in own} == set(WEB.iterdir())
    assert content.FILES["chart.js"].read_bytes().startswith(b"/*!\n * Chart.js v4")


def test_scripts_are_in_files_alone_and_never_write_markup() -> None:
    page = (WEB / "page.html").read_text()
    assert page.count("<script") == page.count('src="static/') == 2
    assert "style=" not in page
    assert "onclick" not in page
    scripts = "".join(path.read_text() for path in WEB.glob("*.js"))
    assert "innerHTML =" not in scripts
    assert "insertAdjacentHTML" not in scripts
    assert "eval(" not in scripts


@pytest.fixture
def pages(tmp_path: Path) -> Settings:
    """Settings whose runbook has one page, beside a file that is none."""
    (tmp_path / "plugins").mkdir()
    folder = tmp_path / "docs" / "runbooks"
    folder.mkdir(parents=True)
    (folder / "a-page.md").write_text("# A <script>alert(1)</script>\n\n[b](b-page.md#x) [c](https://example.org/d.md)")
    (tmp_path / "docs" / "secret.md").write_text("secret")
    return Settings(home=tmp_path, plugins=tmp_path / "plugins")


def test_a_page_of_the_runbook_is_html_and_what_is_in_it_is_text(pages: Settings) -> None:
    html = content.runbook_html(pages, "a-page")
    assert html is not None
    assert "<h1>A &lt;script&gt;alert(1)&lt;/script&gt;</h1>" in html
    assert '<a href="b-page#x">b</a>' in html
    assert '<a href="https://example.org/d.md">c</a>' in html


@pytest.mark.parametrize("name", ["../secret", "..%2fsecret", "a-page.md", "none", "", "A-PAGE"])
def test_nothing_but_pages_of_the_runbook_is_read(pages: Settings, name: str) -> None:
    assert content.runbook_html(pages, name) is None
    assert content.runbook_address(pages, name) == ""


def test_the_runbook_may_be_elsewhere(pages: Settings) -> None:
    assert content.runbook_address(pages, "a-page") == "runbooks/a-page"
    away = pages.model_copy(update={"runbooks_url": "https://wiki.example.org/runbooks/"})
    assert content.runbook_address(away, "a-page") == "https://wiki.example.org/runbooks/a-page.md"
    assert content.runbook_html(away, "a-page") is None


def dag(name: str, *states: str, paused: bool = False) -> Dag:
    """A DAG with runs in these states, the latest first."""
    at = datetime(2026, 5, 1, tzinfo=UTC)
    return Dag(name, paused, runs=[DagRun(f"manual__{n}+00:00", state, at) for n, state in enumerate(states)])


def test_the_last_run_that_ended_counts() -> None:
    failed, fine, fresh = dag("p_union", "running", "failed"), dag("p_batch", "success", "failed"), dag("p_replay")
    (problem,) = dag_problems(["p_union", "p_batch", "p_replay"], [failed, fine, fresh], Schedule())
    assert (problem.severity, problem.runbook) == ("error", "union-failed")
    assert problem.command == "twofold airflow dags trigger p_union"
    assert problem.link == "dags/p_union/runs/manual__1%2B00%3A00"
    assert (ROOT / "docs" / "runbooks" / f"{problem.runbook}.md").exists()


@pytest.mark.parametrize(("kind", "command"), [("replay", ""), ("services", "twofold services p")])
def test_no_command_does_something_else_than_what_failed(kind: str, command: str) -> None:
    """A run by hand is a dry run of a replay, which succeeds; of services it starts what somebody stopped."""
    (problem,) = dag_problems([f"p_{kind}"], [dag(f"p_{kind}", "failed")], Schedule())
    assert (problem.command, problem.link) == (command, f"dags/p_{kind}/runs/manual__0%2B00%3A00")


def test_what_nothing_schedules_may_be_paused() -> None:
    dags = [dag(f"p_{kind}", paused=True) for kind in ("batch", "proof", "replay", "union")]
    for schedule, kinds in (
        (Schedule(proof="none"), ["union"]),
        (Schedule(batch="@hourly"), ["batch", "proof", "union"]),
    ):
        found = dag_problems([one.id for one in dags], dags, schedule)
        assert [one.command for one in found] == [f"twofold airflow dags unpause p_{kind}" for kind in kinds]


def test_a_dag_that_waits_to_be_switched_on_is_told_but_for_one_run_by_hand() -> None:
    paused = [dag("p_services", paused=True), dag("p_replay", paused=True)]
    found = dag_problems(["p_services", "p_replay", "p_union"], paused, Schedule())
    assert [(problem.severity, problem.command) for problem in found] == [
        ("note", "twofold airflow dags list-import-errors"),
        ("warning", "twofold airflow dags unpause p_services"),
    ]
