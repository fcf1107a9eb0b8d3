"""ZooKeeper and Kafka from the jars folder, with small heaps and logs on standard error for the supervisor to keep."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from twofold import java
from twofold.errors import TwofoldError
from twofold.settings import Settings
from twofold.stack import health, ports
from twofold.stack.program import Program
from twofold.stack.state import write_private

_LOGGING = (
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSS",
    "-Dorg.slf4j.simpleLogger.showThreadName=false",
)
JVM = ("-Djava.awt.headless=true", "-XX:-UsePerfData", "-XX:+ExitOnOutOfMemoryError", *_LOGGING)

ZOOKEEPER = """\
dataDir={folder}
clientPort={port}
tickTime=1000
maxClientCnxns=0
admin.enableServer=false
4lw.commands.whitelist=ruok,srvr
autopurge.snapRetainCount=3
autopurge.purgeInterval=1
"""
"""What every ZooKeeper of ours is told, here and in a container."""
_ZOOKEEPER_HERE = ZOOKEEPER + "clientPortAddress=127.0.0.1\n"

# zookeeper.session.timeout.ms: the successor of a killed broker ends at once while the killed one's session lives.
# log.retention: a topic is kept whole, since the proof compares every offset with what was landed.
# log.cleaner.dedupe.buffer.size: the default, 128 MB, is a third of the heap.
BROKER = """\
log.dirs={folder}
log.retention.hours=-1
log.cleaner.dedupe.buffer.size=16777216
auto.create.topics.enable=false
delete.topic.enable=true
num.network.threads=2
num.io.threads=4
offsets.topic.replication.factor={replication}
offsets.topic.num.partitions=4
transaction.state.log.replication.factor={replication}
transaction.state.log.min.isr={in_sync}
transaction.state.log.num.partitions=4
group.initial.rebalance.delay.ms=0
"""
"""What every broker of ours is told, here and in a container."""
SESSION = "zookeeper.session.timeout.ms=4000\n"
_BROKER_HERE = f"""\
broker.id=0
listeners=PLAINTEXT://127.0.0.1:{{port}}
zookeeper.connect=127.0.0.1:{{zookeeper_port}}
{SESSION}{BROKER}"""


def prepare(settings: Settings) -> None:
    """Make both data folders and write both configurations."""
    _require_installed(settings)
    folders = {name: settings.home / name / "data" for name in ("zookeeper", "kafka")}
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
    listen = {"port": settings.zookeeper_port}
    write_private(
        _config(settings, "zookeeper"), _ZOOKEEPER_HERE.format(folder=_escape(folders["zookeeper"]), **listen)
    )
    listen = {"port": settings.kafka_port, "zookeeper_port": settings.zookeeper_port}
    alone = {"replication": 1, "in_sync": 1}
    write_private(_config(settings, "kafka"), _BROKER_HERE.format(folder=_escape(folders["kafka"]), **listen, **alone))


def _escape(folder: Path) -> str:
    """A path as Java reads it in a properties file, which knows Latin-1 only; Kafka splits folders at commas."""
    if "," in str(folder):
        raise TwofoldError(f"Kafka cannot keep its data in {folder}", "choose a folder without a comma")
    return "".join(c if c.isascii() and c != "\\" else f"\\u{ord(c):04x}" for c in str(folder))


def zookeeper_program(settings: Settings) -> Program:
    """ZooKeeper, which Kafka needs from its start to its end."""
    main = "org.apache.zookeeper.server.quorum.QuorumPeerMain"
    return Program(
        name="zookeeper",
        command=_java(settings, main, "zookeeper", "-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"),
        check=partial(health.zookeeper, settings),
        start_order=20,
        ports=(ports.ZOOKEEPER,),
        directory=settings.home,
    )


def kafka_program(settings: Settings) -> Program:
    """The broker; a clean stop hands its registration back to ZooKeeper, so it goes before ZooKeeper."""
    return Program(
        name="kafka",
        command=_java(settings, "kafka.Kafka", "kafka", "-Xmx384m", *agent(settings, "127.0.0.1")),
        check=partial(health.kafka, settings),
        start_order=30,
        ports=(ports.KAFKA, ports.KAFKA_METRICS),
        directory=settings.home,
        stop_wait_seconds=60,
    )


def agent(settings: Settings, host: str) -> list[str]:
    """The JMX exporter, which tells Prometheus of the broker; always there, as it cannot be added to one that runs."""
    config = settings.monitoring / "kafka" / "jmx.yml"
    jars = sorted((settings.jars / "kafka").glob("jmx_prometheus_javaagent-*.jar"))
    return [f"-javaagent:{jar}={host}:{settings.kafka_metrics_port}:{config}" for jar in jars]


def _config(settings: Settings, name: str) -> Path:
    return settings.home / name / f"{name}.properties"


def _require_installed(settings: Settings) -> None:
    java.find()
    if not any((settings.jars / "kafka").glob("kafka_*.jar")):
        raise TwofoldError(f"Kafka's jars are not in {settings.jars}", "run `make setup`, or set TWOFOLD_JARS")


def _java(settings: Settings, main: str, name: str, *options: str) -> tuple[str, ...]:
    jars = settings.jars / "kafka"
    return (str(java.find()), *options, *JVM, "-cp", f"{jars}/*", main, str(_config(settings, name)))
