"""ZooKeeper and Kafka from the jars folder, with small heaps and logs on standard error for the supervisor to keep.

What is the same for every ZooKeeper and broker of ours, here and in a container, stands here; what only containers
have (logins, KRaft, several brokers) in `containers.broker`.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from twofold import probes
from twofold.errors import TwofoldError
from twofold.launch import FETCH_JARS, find_java
from twofold.local_files import write_whole
from twofold.settings import Settings
from twofold.stack.programs import PORTS, Program

_JVM = (
    "-Djava.awt.headless=true",
    "-XX:-UsePerfData",
    "-XX:+ExitOnOutOfMemoryError",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSS",
    "-Dorg.slf4j.simpleLogger.showThreadName=false",
)
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
ZOOKEEPER_MAIN = (
    "-Xmx128m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "org.apache.zookeeper.server.quorum.QuorumPeerMain",
)
# log.retention: a topic is kept whole, since the proof compares every offset with what was ingested.
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
# zookeeper.session.timeout.ms: the successor of a killed broker ends at once while the killed one's session lives.
BROKER_OF_ZOOKEEPER = "broker.id={node}\nzookeeper.connect={zookeeper}\nzookeeper.session.timeout.ms=4000\n"

_STARTED = "[KafkaServer id=0] started"
_OTHER_CLUSTER = "Invalid cluster.id"
"""What a broker says, and ends, where its data is of another cluster than its ZooKeeper."""


def refused_data(settings: Settings, said: str) -> TwofoldError | None:
    """What it means where a broker does not start on the data that it finds; None where its log says nothing of it.

    Either folder alone is worth nothing: ZooKeeper knows which topics there are, Kafka has their records.
    """
    if _OTHER_CLUSTER not in said.rpartition(_STARTED)[2]:
        return None
    zookeeper, kafka = (settings.home / name for name in ("zookeeper", "kafka"))
    return TwofoldError(
        f"Kafka's data is of another cluster than ZooKeeper's: {zookeeper} or {kafka} was lost, or is another's",
        "bring back the one that was lost; where it is gone for good, delete both folders: topics begin from nothing, "
        "so declare their streams under new pipeline names (what landed stays readable)",
    )


def java(settings: Settings, program: str, *arguments: str) -> list[str]:
    """A Java program of the jars folder: `arguments` are its options, its class, and what the class is given."""
    return [program, *_JVM, "-cp", f"{settings.jars / 'kafka'}/*", *arguments]


def agent(settings: Settings, host: str) -> list[str]:
    """The JMX exporter, through which Prometheus sees the broker; it cannot be added to one that runs."""
    config = settings.monitoring / "kafka" / "jmx.yml"
    jars = sorted((settings.jars / "kafka").glob("jmx_prometheus_javaagent-*.jar"))
    return [f"-javaagent:{jar}={host}:{settings.kafka_metrics_port}:{config}" for jar in jars]


def prepare(settings: Settings) -> None:
    """Make both data folders and write both configurations."""
    find_java()
    if not any((settings.jars / "kafka").glob("kafka_*.jar")):
        raise TwofoldError(f"Kafka's jars are not in {settings.jars}", FETCH_JARS)
    zookeeper = ZOOKEEPER.format(folder=_data(settings, "zookeeper"), port=settings.zookeeper_port)
    write_whole(_config(settings, "zookeeper"), f"{zookeeper}clientPortAddress=127.0.0.1\n", 0o600)
    listen = f"listeners=PLAINTEXT://127.0.0.1:{settings.kafka_port}\n"
    registered = BROKER_OF_ZOOKEEPER.format(node=0, zookeeper=f"127.0.0.1:{settings.zookeeper_port}")
    broker = BROKER.format(folder=_data(settings, "kafka"), replication=1, in_sync=1)
    write_whole(_config(settings, "kafka"), listen + registered + broker, 0o600)


def _data(settings: Settings, name: str) -> str:
    """A data folder as Java reads it in a properties file, which knows Latin-1 only; Kafka splits folders at commas."""
    folder = settings.home / name / "data"
    if "," in str(folder):
        raise TwofoldError(f"Kafka cannot keep its data in {folder}", "choose a folder without a comma")
    folder.mkdir(parents=True, exist_ok=True)
    return "".join(c if c.isascii() and c != "\\" else f"\\u{ord(c):04x}" for c in str(folder))


def _config(settings: Settings, name: str) -> Path:
    return settings.home / name / f"{name}.properties"


def programs(settings: Settings) -> tuple[Program, ...]:
    """ZooKeeper, which Kafka needs from its start to its end: a broker's clean stop hands its registration back."""
    here, found = "127.0.0.1", str(find_java())
    main = ("-Xmx384m", *agent(settings, here), "kafka.Kafka")
    return (
        Program(
            name="zookeeper",
            group="brokers",
            command=tuple(java(settings, found, *ZOOKEEPER_MAIN, str(_config(settings, "zookeeper")))),
            check=partial(probes.zookeeper, here, settings.zookeeper_port),
            start_order=20,
            ports=(PORTS["zookeeper"],),
        ),
        Program(
            name="kafka",
            group="brokers",
            command=tuple(java(settings, found, *main, str(_config(settings, "kafka")))),
            check=partial(probes.kafka, here, settings.kafka_port),
            start_order=30,
            ports=(PORTS["kafka"], PORTS["kafka_metrics"]),
            stop_wait_s=60,
        ),
    )
