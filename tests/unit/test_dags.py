"""Rules of the DAGs: what each must have, what no DAG file may do, and that one faulty definition hides no other."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from scripts import docs
from tests.conftest import write_definition

ROOT = Path(__file__).parents[2]
DAG_FILES = sorted((ROOT / "dags").glob("*.py"))
PLUGIN_FILES = sorted((ROOT / "plugins").rglob("*.py"))
KINDS = {"services", "batch", "union", "maintenance", "proof", "replay"}
PLAN = """
import json, sys
from twofold_airflow.table_operators import ReplayOperator
empty = {"first": 1, "last": None, "files": "", "since": "", "dry_run": False}
for form in json.loads(sys.argv[1]):
    try:
        operator = ReplayOperator(task_id="plan", pipeline="sound")
        operator.execute({"params": {**empty, **form}, "run_id": "manual"})
    except BaseException as error:
        print("SAID", type(error).__name__, *str(error).splitlines()[:1])
from twofold_airflow.spark_job import SparkJobOperator
try:
    operator = SparkJobOperator(task_id="reland", pipeline="sound", job="reland", only=["reland"])
    operator.execute({"params": {"what": "landings"}})
except BaseException as error:
    print("SAID", type(error).__name__, error)
"""
"""Plans a replay by each of some forms, runs a job that is for another one, and prints how each ends."""
BESIDE_THE_DATABASE = {"metadata.py", "page", "dag_folder.py"}
"""Parts of the plugins that ask the database before Airflow runs, in its API server or DAG processor; no task does."""


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Facts of the DAGs of two sound pipelines beside a faulty one."""
    folder = tmp_path_factory.mktemp("pipelines")
    write_definition(folder, name="timed", schedule={"batch": "*/5 * * * *", "union": "@daily", "proof": "none"})
    sound = write_definition(folder, name="sound")
    faulty = Path(sound.source_file).read_text().replace("10 minutes", "soon").replace("sound", "faulty")
    (folder / "faulty.yaml").write_text(faulty)
    environment = {
        **os.environ,
        "AIRFLOW_HOME": str(tmp_path_factory.mktemp("airflow")),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "PYTHONPATH": f"{ROOT / 'plugins'}{os.pathsep}{ROOT}",
        "TWOFOLD_PIPELINES": str(folder),
    }
    forms = [
        {"what": "mended"},
        {"what": "mended", "files": "a.jsonl", "last": 3},
        {"what": "landings", "files": "a.jsonl"},
        {"what": "accept-loss", "first": 2},
        {"what": "reland", "last": 2},
        {"what": "reland", "since": "2 hours"},
    ]
    planned = subprocess.run(
        [sys.executable, "-c", PLAN, json.dumps(forms)], env=environment, capture_output=True, text=True, check=False
    )
    command = [sys.executable, str(ROOT / "tests" / "airflow_facts.py"), str(ROOT / "dags")]
    outcome = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    lines = [line for line in outcome.stdout.splitlines() if line.startswith("FACTS ")]
    assert lines, outcome.stderr
    found: dict[str, Any] = json.loads(lines[0].removeprefix("FACTS "))
    said = [line.removeprefix("SAID ") for line in planned.stdout.splitlines() if line.startswith("SAID ")]
    assert len(said) == len(forms) + 1, planned.stderr
    return {**found, "planned": said}


def test_every_sound_pipeline_has_its_dags(facts: dict[str, Any]) -> None:
    assert set(facts["dags"]) == {f"{name}_{kind}" for name in ("sound", "timed") for kind in KINDS}


def test_the_process_of_a_task_makes_the_dags_of_its_own_pipeline_only(facts: dict[str, Any]) -> None:
    own = {f"{name}_{kind}": sorted(f"{name}_{one}" for one in KINDS) for name in ("sound", "timed") for kind in KINDS}
    assert facts["alone"] == own


def test_a_faulty_definition_is_the_only_import_error_and_names_file_field_and_remedy(facts: dict[str, Any]) -> None:
    ((file, message),) = facts["errors"].items()
    assert file.endswith("definitions.py")
    assert re.search(r'faulty\.yaml:\d+: lateness: found "soon", expected a duration', message)
    assert "remedy: fix the definition" in message


def test_a_form_of_a_replay_has_what_is_asked_for_and_nothing_else(facts: dict[str, Any]) -> None:
    """A replay of no file was done, and a range beside the files of another kind was passed over."""
    *refused, reland, of_another = facts["planned"]
    assert of_another == "AirflowSkipException it is for reland"
    for line, said in zip(
        refused,
        (
            "no file of fixed records is named",
            "last is set to 3, which is for `what: landings` and not for `mended`",
            "files is set to 'a.jsonl', which is for `what: mended` and not for `landings`",
            "first is set to 2, which is for `what: landings` and not for `accept-loss`",
            "last is set to 2, which is for `what: landings` and not for `reland`",
        ),
        strict=True,
    ):
        assert line.startswith("AirflowFailException ") and said in line, line
    assert reland.startswith("DownstreamTasksSkipped"), reland


def test_a_task_of_the_replay_that_somebody_clears_is_still_of_its_own_form(facts: dict[str, Any]) -> None:
    """`reland` of a run that was to replay landings judged everything again, and replaced rows."""
    tasks = facts["dags"]["sound_replay"]["tasks"]
    assert (tasks["land"]["only"], tasks["reland"]["only"]) == (["landings", "mended"], ["reland"])


def test_every_dag_has_owner_tags_manual_and_runs_one_at_a_time(facts: dict[str, Any]) -> None:
    for name, dag in facts["dags"].items():
        pipeline, kind = name.rsplit("_", 1)
        assert dag["owners"] == ["twofold"], name
        assert dag["tags"] == sorted(["twofold", kind]), name
        assert dag["doc"].startswith("# ") and f"`{pipeline}`" in dag["doc"] and "<p>" not in dag["doc"], name
        assert (dag["max_active_runs"], dag["catchup"]) == (1, False), name
        assert all(task["on_failure"] for task in dag["tasks"].values()), name
        assert all("Status page" in task["links"] for task in dag["tasks"].values()), name


def test_schedules_are_those_declared(facts: dict[str, Any]) -> None:
    kinds = {name: dag["schedule"] for name, dag in facts["dags"].items()}
    assert kinds["sound_batch"] == kinds["sound_replay"] == "NullTimetable"
    assert kinds["timed_batch"] == "CronDataIntervalTimetable"
    assert (kinds["sound_proof"], kinds["timed_proof"]) == ("CronTriggerTimetable", "NullTimetable")
    assert kinds["sound_union"] == kinds["timed_union"] == "AssetOrTimeSchedule"


def test_spark_jobs_share_a_pool_of_one_slot_and_checks_are_not_repeated(facts: dict[str, Any]) -> None:
    tasks = {f"{name}.{task}": fact for name, dag in facts["dags"].items() for task, fact in dag["tasks"].items()}
    pools = {name.removeprefix("sound_"): task["pool"] for name, task in tasks.items() if name.startswith("sound_")}
    assert {name for name, pool in pools.items() if pool == "spark"} == {
        "batch.land",
        "union.union",
        "maintenance.maintain",
        "replay.land",
        "replay.reland",
    }
    assert not [name for name, task in tasks.items() if ".check_" in name and task["retries"]]


def test_services_and_unions_come_before_a_backfill_of_other_dags(facts: dict[str, Any]) -> None:
    """Of equal weights Airflow takes the earlier date first, which all runs of a backfill have."""
    weights: dict[str, list[int]] = {}
    for name, dag in facts["dags"].items():
        weights.setdefault(name.rsplit("_", 1)[1], []).extend(task["weight"] for task in dag["tasks"].values())
    others = [weights[kind] for kind in KINDS - {"services", "union"}]
    assert min(weights["services"]) > max(weights["union"])
    spark = [dag["tasks"]["union"]["weight"] for name, dag in facts["dags"].items() if name.endswith("_union")]
    assert min(spark) > max(map(max, others))


def test_every_runbook_page_that_a_failure_names_is_there(facts: dict[str, Any]) -> None:
    tasks = (task for dag in facts["dags"].values() for task in dag["tasks"].values())
    named = {task["runbook"] for task in tasks if task["runbook"]}
    for file in PLUGIN_FILES:
        calls = (node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call))
        for call in calls:
            if isinstance(call.func, ast.Name) and call.func.id == "failed" and isinstance(call.args[2], ast.Constant):
                named.add(call.args[2].value)
    assert named >= {"batch-failed", "union-failed", "maintenance-failed", "limit-passed"}
    assert not [page for page in named if not (ROOT / "docs" / "runbooks" / f"{page}.md").is_file()]


def test_parsing_the_dag_files_loads_nothing_that_only_tasks_need(facts: dict[str, Any]) -> None:
    """All files are parsed at each change and every other minute: with these, each takes a second longer."""
    assert not {"pyiceberg", "pandas", "pyarrow", "pyspark", "kafka"} & set(facts["modules"])


@pytest.mark.parametrize("file", DAG_FILES, ids=lambda file: file.name)
def test_a_dag_file_only_wires(file: Path) -> None:
    tree = ast.parse(file.read_text())
    made_here = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda, ast.Try)
    assert not [type(node).__name__ for node in ast.walk(tree) if isinstance(node, made_here)]
    assert ast.get_docstring(tree)
    allowed = {"airflow.sdk", "datetime", "twofold", "twofold_airflow"}
    assert {
        module for module in imports(tree) if module not in allowed and module.split(".")[0] not in allowed
    } == set()


@pytest.mark.parametrize("file", [*DAG_FILES, *PLUGIN_FILES], ids=lambda file: file.name)
def test_no_task_can_reach_the_metadata_database(file: Path) -> None:
    if not BESIDE_THE_DATABASE & set(file.parts):
        banned = ("airflow.models", "airflow.settings", "airflow.utils.db", "airflow.utils.session", "sqlalchemy")
        assert not [module for module in imports(ast.parse(file.read_text())) if module.startswith(banned)]


def test_the_page_of_manuals_is_what_the_docstrings_say() -> None:
    assert (ROOT / "docs" / "DAGS.md").read_text() == docs.manuals()


def imports(tree: ast.Module) -> set[str]:
    named = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    return named | {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)} - {"__future__"}
