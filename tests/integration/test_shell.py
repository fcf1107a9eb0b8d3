"""A stack and its jobs in the worst of shells: everything that could steer them is set at once, from `up` to `down`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import running
from tests.at_work import eventually
from tests.conftest import random_name, write_definition
from twofold.settings import Settings

FILE = "März Übersicht 中文.csv"
OF_THE_HOME_FOLDER = (".aws/config", ".config/fsspec/s3.json", ".pyiceberg.yaml", ".pg_service.conf")


def worst(folder: Path) -> dict[str, str]:
    """Variables of a shell that has seen other lakes."""
    strangers, home = folder / "strangers", folder / "home"
    strangers.mkdir()
    for name in ("click", "pyspark", "pyarrow", "pyiceberg", "supervisor", "kafka", "psycopg", "twofold_airflow"):
        (strangers / f"{name}.py").write_text(f"raise SystemExit('the stranger {name} was imported')\n")
    for name in OF_THE_HOME_FOLDER:
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text("[[{ no configuration: of anything")
    (strangers / "spark-defaults.conf").write_text(
        "spark.jars.packages no.such:jar:1\nspark.sql.session.timeZone Asia/Dhaka\n"
    )
    (strangers / "spark-env.sh").write_text("exit 7\n")
    return {
        "LC_ALL": "C",
        "LANG": "",
        "TZ": "Asia/Kathmandu",
        "LOGNAME": "someone-else",
        "PYTHONPATH": str(strangers),
        "PYTHONWARNINGS": "error",
        "PYTHONIOENCODING": "ascii",
        "BASH_ENV": str(strangers / "spark-env.sh"),
        "JAVA_TOOL_OPTIONS": "-Xmx1k -Dfile.encoding=US-ASCII",
        "_JAVA_OPTIONS": "-Xmx1k",
        "JDK_JAVA_OPTIONS": "-Duser.timezone=Asia/Kathmandu",
        "CLASSPATH": "/nowhere",
        "SPARK_HOME": "/opt/spark-2.4",
        "SPARK_CONF_DIR": str(strangers),
        "HADOOP_CONF_DIR": str(strangers),
        "PYSPARK_SUBMIT_ARGS": "--master yarn pyspark-shell",
        "PYSPARK_PYTHON": "/nowhere/python",
        "KAFKA_OPTS": "-Xmx1k",
        "LOG_DIR": "/nowhere",
        "PGHOSTADDR": "192.0.2.1",
        "PGSERVICE": "none",
        "PGSSLMODE": "verify-full",
        "PGOPTIONS": "-c no.such=setting -c search_path=nowhere",
        "AWS_PROFILE": "none",
        "PYICEBERG_MAX_WORKERS": "no number",
        "http_proxy": "http://127.0.0.1:1",
        "HTTPS_PROXY": "http://127.0.0.1:1",
        "all_proxy": "socks5://127.0.0.1:1",
        "HOME": str(home),
    }


@pytest.fixture
def hostile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """A stack that was started from the worst of shells, in a folder with an umlaut; commands run in that shell."""
    with running.home_folder() as folder:
        home = folder / "Büro"
        home.mkdir(mode=0o755)
        settings = running.fresh_settings(home, tmp_path / "pipelines", **running.QUICK_SERVICES)
        settings.pipelines.mkdir()
        for name, value in worst(tmp_path).items():
            monkeypatch.setenv(name, value)
        try:
            running.run(settings, "up", "--no-airflow", timeout_s=900)
            # Anew: now with the passwords that `up` wrote down.
            yield Settings(home=home, pipelines=settings.pipelines, jars=settings.jars)
        finally:
            running.run(settings, "down")


def test_files_of_any_name_are_ingested_and_proved(hostile: Settings, tmp_path: Path) -> None:
    name = random_name()
    write_definition(hostile.pipelines, name=name)
    file = tmp_path / FILE
    file.write_text("id,at,kind,value\nü1,2024-05-01T00:00:01Z,a,1\n二,2024-05-01T00:00:02Z,b,2\n")
    assert FILE in running.run(hostile, "land", name, str(file)).stderr
    running.run(hostile, "batch", name)
    running.run(hostile, "produce", name, "--generate", "10")
    streamed = running.run(hostile, "stream", name, "--until-caught-up")
    # What libraries say of objects that outlive Python's end.
    assert "leaked" not in streamed.stderr
    running.run(hostile, "union", name)
    sql = f"SELECT id, file, strftime(\"at\", '%H:%M:%S') FROM {name}.batch_log ORDER BY row"
    told = running.run(hostile, "query", sql, "--format", "csv").stdout.splitlines()
    assert told[1:] == [f"ü1,{FILE},00:00:01", f"二,{FILE},00:00:02"]
    sql = f"SELECT count(*) FILTER (layer = 'batch'), count(*) > 2 FROM {name}.unified_events"
    assert running.run(hostile, "query", sql, "--format", "csv").stdout.splitlines()[1:] == ["2,true"]
    assert "all invariants hold" in running.run(hostile, "prove", name).stdout
    eventually(lambda: running.run(hostile, "status", check=False).returncode == 0)
