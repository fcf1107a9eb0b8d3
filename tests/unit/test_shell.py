"""The user's shell changes nothing: each variable that could, on real programs of ours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import click
import pytest

from twofold import shell
from twofold.cli import cli
from twofold.errors import TwofoldError
from twofold.launch import find_java
from twofold.settings import Settings
from twofold.setup import jars
from twofold.stack import brokers, programs

FLIGHTS = Path(__file__).parents[2] / "pipelines" / "flights.yaml"
NAME = "März Übersicht 中文 \udcff.yaml"
"""A file name in several scripts, with a byte that is no text at all."""

STRANGERS = "modules in the place of others"
HOSTILE: dict[str, dict[str, str]] = {
    "locale of cron": {"LC_ALL": "C", "LANG": ""},
    "locale that is not there": {"LC_ALL": "xx_YY.ISO-8859-1", "LANG": "xx_YY", "LANGUAGE": "tlh"},
    "Python without UTF-8": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    STRANGERS: {"PYTHONPATH": "{strangers}"},
}
"""What Python itself reads first, each in a process of its own."""
OF_PYTHON: dict[str, dict[str, str]] = {
    "output as ASCII": {"PYTHONIOENCODING": "ascii"},
    "warnings as errors": {"PYTHONWARNINGS": "error"},
    "Python that asks at its end": {"PYTHONINSPECT": "1"},
    "no working folder on the path": {"PYTHONSAFEPATH": "1"},
    "asserts off": {"PYTHONOPTIMIZE": "2"},
}
OF_OTHERS: dict[str, dict[str, str]] = {
    "time zone": {"TZ": "Asia/Kathmandu"},
    "proxies": {"http_proxy": "http://127.0.0.1:1", "https_proxy": "http://127.0.0.1:1", "all_proxy": "socks5://h:1"},
    "Java": {"JAVA_HOME": "/nowhere", "JAVA_TOOL_OPTIONS": "-Xmx1k", "_JAVA_OPTIONS": "-Xmx1k", "CLASSPATH": "/x"},
    "Spark": {"SPARK_HOME": "/opt/spark-2.4", "SPARK_CONF_DIR": "/x", "PYSPARK_SUBMIT_ARGS": "--x", "BASH_ENV": "/x"},
    "files of the home folder": {"HOME": "{home}", "AWS_PROFILE": "none"},
    "PostgreSQL": {"PGSERVICE": "none", "PGHOSTADDR": "192.0.2.1", "PGSSLMODE": "require", "PGOPTIONS": "-c x=y"},
}


@pytest.fixture
def strangers(tmp_path: Path) -> Path:
    """A folder of modules with names that ours import, each of which ends the program."""
    folder = tmp_path / "strangers"
    folder.mkdir()
    for name in ("click", "pydantic", "duckdb", "msgspec", "pyspark", "kafka", "json", "logging", "subprocess"):
        (folder / f"{name}.py").write_text(f"raise SystemExit('the stranger {name} was imported')\n")
    return folder


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home folder with configuration files that no library can read."""
    folder = tmp_path / "home"
    for name in (".aws/config", ".aws/credentials", ".config/fsspec/s3.json", ".pyiceberg.yaml"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("[[{ no configuration: of anything\n\t- at all")
    return folder


WAYS = {
    "module": ["-m", "twofold"],
    "cli": ["-m", "twofold.cli"],
    "script": [str(Path(sys.executable).with_name("twofold"))],
}
"""How a command is started."""


@dataclass(frozen=True)
class Command:
    """`twofold check`, run in a folder by a shell."""

    folder: Path
    places: dict[str, Path]

    def differs(self, variables: Mapping[str, str], way: str = "script") -> str:
        """What is other than always; empty: nothing."""
        given = {name: value.format(**self.places) for name, value in variables.items()}
        done = run([*WAYS[way], "check", NAME], given, cwd=self.folder)
        if (done.returncode, done.stderr) == (0, b"") and os.fsencode(NAME) + b": ok (flights" in done.stdout:
            return ""
        return f"{done.returncode}: {(done.stderr + done.stdout).decode(errors='replace')}"


@pytest.fixture
def command(tmp_path: Path, strangers: Path, home: Path) -> Command:
    (tmp_path / NAME).write_bytes(FLIGHTS.read_bytes())
    return Command(tmp_path, {"strangers": strangers, "home": home})


@pytest.mark.parametrize(
    ("case", "way"), [*((case, "script") for case in HOSTILE), (STRANGERS, "module"), (STRANGERS, "cli")]
)
def test_a_command_says_the_same_in_any_shell(command: Command, case: str, way: str) -> None:
    assert command.differs(HOSTILE[case], way) == ""


@pytest.mark.parametrize("cases", [OF_PYTHON, OF_OTHERS], ids=["of Python", "of others"])
def test_a_command_says_the_same_where_much_is_set(command: Command, cases: dict[str, dict[str, str]]) -> None:
    """All of it in one shell; where that fails, each case is run alone and named."""
    every = {name: value for variables in cases.values() for name, value in variables.items()}
    if said := command.differs(every):
        pytest.fail(str({case: alone for case in cases if (alone := command.differs(cases[case]))} or said))


@pytest.mark.parametrize("name", [name for variables in OF_PYTHON.values() for name in variables])
def test_a_program_is_run_again_for_each_variable_that_python_itself_reads(name: str) -> None:
    """Each for itself: beside others, it is the others that are the reason."""
    assert shell._steers_python({name: "1"})
    assert shell.cleaned({name: "0"}).get(name) in (None, "1"), "ours, or none"


def test_what_a_command_starts_takes_no_module_from_the_users_folder(strangers: Path) -> None:
    script = (
        "from twofold import shell; shell.enter()\n"
        "import subprocess, sys\n"
        "sys.exit(subprocess.run([sys.executable, '-m', 'producer.producer', '--help']).returncode)\n"
    )
    # The first program must itself get past the strangers: only what it starts is looked at.
    done = run(["-P", "-c", script], {}, cwd=strangers)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"Send a pipeline" in done.stdout


def test_a_module_of_the_users_folder_is_found_also_by_a_program_run_anew(tmp_path: Path) -> None:
    tmp_path.joinpath("mine.py").write_text("from twofold import shell; shell.enter(); print('found')")
    done = run(["-m", "mine"], {"LC_ALL": "C", "PYTHONUTF8": "0"}, cwd=tmp_path)
    assert (done.returncode, done.stderr, done.stdout) == (0, b"", b"found\n")


def test_the_jvm_of_a_job_takes_names_of_any_script_and_no_options() -> None:
    script = "from twofold import shell; shell.clean(); import os; os.execvp('java', ['java', *os.sys.argv[1:]])"
    hostile = {"LC_ALL": "C", "JAVA_TOOL_OPTIONS": "-Dx.y=1", "JDK_JAVA_OPTIONS": "-Dx.z=1", "_JAVA_OPTIONS": "-Dx.u=1"}
    done = run(["-c", script, "-XshowSettings:properties", "-version"], hostile)
    told = done.stderr.decode()
    assert "sun.jnu.encoding = UTF-8" in told
    assert "x.y" not in told
    assert "x.z" not in told
    assert "x.u" not in told


def test_libraries_find_no_configuration_of_the_users(home: Path) -> None:
    script = (
        "from twofold import shell; shell.enter()\n"
        "import json, time, botocore.session, fsspec.config, pyarrow, pyiceberg.utils.config as iceberg\n"
        "session = botocore.session.Session()\n"
        "print(json.dumps([session.full_config['profiles'], fsspec.config.conf.get('s3'), time.tzname[0],\n"
        "    iceberg.Config().config.get('max-workers')]))\n"
    )
    hostile = {
        "HOME": str(home),
        "AWS_PROFILE": "none",
        "FSSPEC_S3_ANON": "true",
        "PYICEBERG_MAX_WORKERS": "no number",
        "ARROW_DEFAULT_MEMORY_POOL": "no pool",
        "ARROW_USER_SIMD_LEVEL": "no level",
        "TZ": "Asia/Kathmandu",
    }
    done = run(["-c", script], hostile)
    assert json.loads(done.stdout or b"null") == [{}, None, "UTC", None], done.stderr
    assert done.stderr == b""


def test_no_proxy_stands_before_this_machine() -> None:
    script = (
        "import sys\nfrom twofold import shell; shell.enter()\n"
        "from twofold import health\nprint(health.ask(sys.argv[1]))"
    )
    with health_server() as ours, health_server("proxy") as proxy:
        done = run(["-c", script, f"127.0.0.1:{ours}"], {"http_proxy": f"http://127.0.0.1:{proxy}", "no_proxy": "x"})
    assert done.stdout.decode().strip() == "{'state': 'ours'}"


def test_a_proxy_stays_for_hosts_elsewhere() -> None:
    found = shell.cleaned({"https_proxy": "http://proxy:3128", "NO_PROXY": "corp.example"})
    assert found["https_proxy"] == "http://proxy:3128"
    assert found["no_proxy"].split(",") == ["corp.example", "localhost", "127.0.0.1", "::1"]
    assert shell.cleaned({"no_proxy": "*"})["no_proxy"] == "*"


def test_what_was_cleaned_is_clean() -> None:
    once = shell.cleaned({**os.environ, **dict.fromkeys(("PGHOST", "AWS_PROFILE", "LC_TIME", "http_proxy"), "x")})
    assert shell.cleaned(once) == once


@pytest.mark.parametrize(
    ("master", "stays"), [("local[2]", False), ("spark://h:7077", False), ("yarn", True), ("k8s://https://h", True)]
)
def test_only_a_cluster_that_needs_one_has_a_configuration_folder(master: str, stays: bool) -> None:
    found = shell.cleaned(
        {"TWOFOLD_SPARK_MASTER": master, "HADOOP_CONF_DIR": "/etc/hadoop", "SPARK_CONF_DIR": "/etc/s"}
    )
    assert {"HADOOP_CONF_DIR", "SPARK_CONF_DIR"}.issubset(found) == stays


def test_settings_and_the_way_to_the_jvm_of_spark_submit_stay() -> None:
    kept = {"TWOFOLD_HOME": "/x", "PATH": "/bin", "PYSPARK_GATEWAY_PORT": "1", "PYSPARK_GATEWAY_SECRET": "s"}
    assert kept.items() <= shell.cleaned(kept).items()


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"JAVA_HOME": "/nowhere"}, "JAVA_HOME is /nowhere, which has no bin/java"),
        ({"JAVA_HOME": "{old}"}, "JAVA_HOME is {old}, which is a Java 8"),
        ({"JAVA_HOME": "{none}"}, "JAVA_HOME is {none}, which is no Java"),
        ({"PATH": "{none}/none"}, "there is no `java` in a folder of PATH"),
        ({"PATH": "{old}/bin"}, "PATH leads to {old}/bin/java, which is a Java 8"),
    ],
)
def test_a_java_that_cannot_be_used_is_named(tmp_path: Path, variables: dict[str, str], said: str) -> None:
    places = {
        "old": installed(tmp_path / "old", 'JAVA_VERSION="1.8.0_392"\n'),
        "none": installed(tmp_path / "none", ""),
    }
    with pytest.raises(TwofoldError) as raised:
        find_java({name: value.format(**places) for name, value in variables.items()})
    assert raised.value.message == said.format(**places)
    assert "JAVA_HOME" in str(raised.value)


def test_the_java_of_java_home_comes_first(tmp_path: Path) -> None:
    newer = installed(tmp_path / "newer", 'IMPLEMENTOR="x"\nJAVA_VERSION="21.0.1"\n')
    assert find_java({"JAVA_HOME": str(newer), "PATH": os.environ["PATH"]}) == newer / "bin" / "java"
    assert find_java({"JAVA_HOME": "", "PATH": os.environ["PATH"]}).name == "java"


def test_all_that_is_java_runs_on_the_java_of_java_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    java = installed(tmp_path / "newer", 'JAVA_VERSION="21.0.1"\n') / "bin" / "java"
    monkeypatch.setenv("JAVA_HOME", str(java.parents[1]))
    settings = Settings(home=tmp_path)
    started = [*brokers.programs(settings), programs.registry(settings)]
    assert {program.name: program.command[0] for program in started} == dict.fromkeys(
        ("zookeeper", "kafka", "registry"), str(java)
    )
    assert jars._ivy(jars.LIST, tmp_path, tmp_path)[0] == java


def installed(folder: Path, release: str) -> Path:
    (folder / "bin").mkdir(parents=True)
    (folder / "release").write_text(release)
    (folder / "bin" / "java").write_text("#!/bin/sh\necho 'I am no Java' >&2\n")
    (folder / "bin" / "java").chmod(0o755)
    return folder


def run(
    arguments: list[str], hostile: Mapping[str, str], cwd: Path | None = None
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, **hostile},
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=False,
    )


@contextmanager
def health_server(who: str = "ours") -> Iterator[int]:
    """Answers every request with its own name; yields its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"state": who}).encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(("wish", "color"), [("1", False), ("", None)])
def test_a_wish_for_no_colors_holds_for_every_command(
    monkeypatch: pytest.MonkeyPatch, wish: str, color: bool | None
) -> None:
    monkeypatch.setenv("NO_COLOR", wish)
    with click.Context(cli) as context:
        assert cli.callback is not None
        cli.callback(None, None)
        assert click.Context(click.Command("prove"), parent=context).color is color
