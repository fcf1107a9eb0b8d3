"""The environment of this process and of its children, freed from the variables of the user's shell.

    user's shell ─► enter() ─► the variables that are ours (TWOFOLD_*), or the machine's (PATH, HOME, proxies, …)
                        │      in UTF-8, in UTC, with nothing that steers Python, Java, Spark, Hadoop, S3 or PostgreSQL
                        └────► every child: jobs, producer, servers

Called first by every program that a user starts. Only what Python itself has imported by then is imported here: until
`enter` has run, PYTHONPATH may put a stranger in the place of any other module.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from io import TextIOWrapper

_KEPT = frozenset({
    "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX", "PYTHONFAULTHANDLER", "PYTHONHASHSEED",
    # How trust in certificates is arranged is the machine's affair.
    "AWS_CA_BUNDLE",
    # A driver that `spark-submit` started finds its JVM by them.
    "PYSPARK_GATEWAY_PORT", "PYSPARK_GATEWAY_SECRET",
})  # fmt: skip
_DROPPED = frozenset({
    # Locale and zone: they are set below.
    "LANG", "LANGUAGE",
    # Options that every JVM takes up by itself, and its class path.
    "JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS", "JDK_JAVA_OPTIONS", "IBM_JAVA_OPTIONS", "OPENJ9_JAVA_OPTIONS", "JAVA_OPTS",
    "CLASSPATH",
    # Configuration folders that land on Spark's class path.
    "YARN_CONF_DIR", "HIVE_CONF_DIR", "HIVE_HOME",
    # What shell scripts run, or print, before their own first line; Spark is started by such.
    "BASH_ENV", "ENV", "CDPATH", "SHELLOPTS", "BASHOPTS", "POSIXLY_CORRECT", "GREP_OPTIONS",
    # No client that is used here can go through one, and some fail when they see it.
    "all_proxy", "ALL_PROXY",
    "LOG_DIR", "BOTO_CONFIG", "AIRFLOW_CONFIG",
})  # fmt: skip
_DROPPED_PREFIXES = (
    "PYTHON",
    "LC_",
    "SPARK_",
    "PYSPARK_",
    "_PYSPARK_",
    "HADOOP_",
    "LOG4J_",
    "LOG4J2_",
    # libpq's: each fills in a parameter that was left out on purpose.
    "PG",
    # S3 clients': endpoint, profile, checksums, a token that does not belong to our key.
    "AWS_",
    "FSSPEC_",
    "PYICEBERG_",
    "ARROW_",
    # The embedded servers'.
    "KAFKA_",
    "ZOO",
    "MINIO_",
    "GF_",
    "BASH_FUNC_",
)
_OF_A_CLUSTER = ("HADOOP_CONF_DIR", "YARN_CONF_DIR", "SPARK_CONF_DIR")
"""YARN and Kubernetes are described in files of their own; nobody else's are wanted."""
_NOWHERE = os.devnull
_SAFE_PATH = "PYTHONSAFEPATH"
_SET = {
    # File names in any script of the world, for every JVM too; messages in the language that the code looks for.
    "LC_ALL": "C.UTF-8",
    "TZ": "UTC",
    # Modules come from where they are installed, never from the folder that the user happens to be in: `python -m`,
    # and so each of Spark's Python workers, would look there first.
    _SAFE_PATH: "1",
    # Files in the user's home folder that would have the last word.
    "AWS_CONFIG_FILE": _NOWHERE,
    "AWS_SHARED_CREDENTIALS_FILE": _NOWHERE,
    "AWS_EC2_METADATA_DISABLED": "true",
    "FSSPEC_CONFIG_DIR": _NOWHERE,
    "PYICEBERG_HOME": os.path.join(os.path.dirname(__file__), "pyiceberg"),  # noqa: PTH118, PTH120
}
_PROXIES = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")
_NO_PROXY = ("no_proxy", "NO_PROXY")
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def enter() -> None:
    """Free this process, and so its children, from the shell's environment; call it before anything else.

    Python itself reads some of it at its start, PYTHONPATH for example: then this program is run again, in the same
    process, with the same arguments.
    """
    again = _steers_python(os.environ) or sys.getfilesystemencoding() != "utf-8"
    if clean() and again:
        # Whoever started it so may have meant a module of this folder.
        own = {name: value for name, value in os.environ.items() if sys.flags.safe_path or name != _SAFE_PATH}
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], own)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            # A file name may hold any bytes; it is printed as those.
            stream.reconfigure(encoding="utf-8", errors="surrogateescape")


class _WithoutPandas:
    """Says that pandas is not there."""

    @staticmethod
    def find_spec(name: str, _path: object = None, _target: object = None) -> None:
        """As `sys.meta_path` asks."""
        if name == "pandas":
            raise ModuleNotFoundError(name=name)


def without_pandas() -> None:
    """Spare this process pandas: pyarrow imports it wherever it is, for 0.3 s, and no program of ours needs it."""
    sys.meta_path.insert(0, _WithoutPandas)


def is_colorless() -> bool:
    """Whether the user wants no colours (https://no-color.org)."""
    return bool(os.environ.get("NO_COLOR"))


def clean() -> bool:
    """Free the environment that children get; what Python itself has read of it stays as it is. Whether it changed."""
    before, after = dict(os.environ), cleaned(os.environ)
    for name in before.keys() - after.keys():
        del os.environ[name]
    os.environ.update(after)
    time.tzset()
    return before != after


def cleaned(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment as this program wants it.

    >>> found = cleaned({"PATH": "/bin", "SPARK_HOME": "/opt", "LANG": "de_DE", "HTTP_PROXY": "socks5://p:1"})
    >>> found["PATH"], found["LC_ALL"], found["NO_PROXY"]
    ('/bin', 'C.UTF-8', 'localhost,127.0.0.1,::1')
    >>> sorted({"SPARK_HOME", "LANG", "HTTP_PROXY"} & found.keys())
    []
    """
    cluster = _OF_A_CLUSTER if environment.get("TWOFOLD_SPARK_MASTER", "").startswith(("yarn", "k8s:")) else ()
    kept = {name: value for name, value in environment.items() if name in cluster or not _is_dropped(name, value)}
    return {**kept, **_SET, **{name: _direct(environment) for name in _NO_PROXY}}


def _is_dropped(name: str, value: str) -> bool:
    if name in _PROXIES:
        return not _is_http(value)
    return name in _DROPPED or (name.startswith(_DROPPED_PREFIXES) and name not in _KEPT)


def _is_http(proxy: str) -> bool:
    """Whether it is a kind of proxy that the clients know; a bare `host:port` is."""
    scheme, separator, _ = proxy.partition("://")
    return not separator or scheme.lower() in ("http", "https")


def _direct(environment: Mapping[str, str]) -> str:
    """Hosts that no proxy stands before: those that the user names, and always this machine.

    >>> _direct({"no_proxy": "corp.example, localhost", "TWOFOLD_S3_ENDPOINT": "http://minio:9000"})
    'corp.example,localhost,127.0.0.1,::1,minio'
    """
    named = [part.strip() for name in _NO_PROXY for part in environment.get(name, "").split(",")]
    if "*" in named:
        return "*"
    return ",".join(dict.fromkeys([*filter(None, named), *_LOOPBACK, *_neighbours(environment)]))


def _neighbours(environment: Mapping[str, str]) -> list[str]:
    """Hosts of the settings whose names have no domain: in containers, the other services."""
    ours = [value.partition("://") for name, value in environment.items() if name.startswith("TWOFOLD_")]
    places = {rest.partition("/")[0].partition(":")[0] for scheme, _, rest in ours if scheme in ("http", "https")}
    return sorted(host for host in places if host.replace("-", "").isalnum() and host not in _LOOPBACK)


def _steers_python(environment: Mapping[str, str]) -> bool:
    return any(name.startswith("PYTHON") and name not in _KEPT for name in environment)
