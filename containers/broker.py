"""Kafka in containers: a broker with logins, in ZooKeeper or KRaft mode, and ZooKeeper, which lets in nobody else.

    listener    who                                             login
    BROKER      brokers among themselves, and `broker_access`   PLAIN, the one user `admin`
    CLIENT      other containers                                SCRAM, users and rights made by `broker_access`
    HOST        programs on the host                            SCRAM
    CONTROLLER  KRaft's controllers                             PLAIN, `admin`
    LOCAL       the health check, in this container             none; has no right but to list the brokers

Run manually: `python -m containers zookeeper`, `python -m containers kafka`
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from containers.container_settings import RUN, ContainerSettings
from containers.healthcheck import ZOOKEEPER_PORT, kafka_local_port
from twofold.commands.become import become_program
from twofold.errors import TwofoldError, UsageError
from twofold.kafka import login_module, quoted
from twofold.local_files import write_whole
from twofold.settings import Settings
from twofold.stack import brokers

ADMIN = "admin"
CLIENT_PORT, BROKER_PORT, CONTROLLER_PORT = 9092, 9093, 9094
_CLUSTER = "twofold-compose-stackA"
"""KRaft's cluster id; ZooKeeper makes its own."""
_DIGEST = "org.apache.zookeeper.server.auth.DigestLoginModule required"
_JAAS = "-Djava.security.auth.login.config="
_AUTHENTICATED = """\
authProvider.1=org.apache.zookeeper.server.auth.SASLAuthenticationProvider
sessionRequireClientSASLAuth=true
"""
_LISTENERS = f"""\
listener.security.protocol.map=BROKER:SASL_PLAINTEXT,CLIENT:SASL_PLAINTEXT,HOST:SASL_PLAINTEXT,\
CONTROLLER:SASL_PLAINTEXT,LOCAL:PLAINTEXT
listeners=CLIENT://:{CLIENT_PORT},BROKER://:{BROKER_PORT},HOST://:{{port}},LOCAL://127.0.0.1:{{local}}{{controller}}
advertised.listeners=CLIENT://{{name}}:{CLIENT_PORT},BROKER://{{name}}:{BROKER_PORT},HOST://127.0.0.1:{{port}},\
LOCAL://127.0.0.1:{{local}}
inter.broker.listener.name=BROKER
sasl.mechanism.inter.broker.protocol=PLAIN
super.users=User:{ADMIN}
allow.everyone.if.no.acl.found=false
default.replication.factor={{replication}}
min.insync.replicas={{in_sync}}
"""
_PLAIN = """\
listener.name.{listener}.sasl.enabled.mechanisms=PLAIN
listener.name.{listener}.plain.sasl.jaas.config={admin}
"""
_SCRAM = """\
listener.name.{listener}.sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.{listener}.scram-sha-512.sasl.jaas.config=\
org.apache.kafka.common.security.scram.ScramLoginModule required;
"""
_LOGINS = {"broker": _PLAIN, "controller": _PLAIN, "client": _SCRAM, "host": _SCRAM}
"""What each listener asks for."""
_MODES = {
    "zookeeper": f"""\
{brokers.BROKER_OF_ZOOKEEPER}zookeeper.set.acl=true
authorizer.class.name=kafka.security.authorizer.AclAuthorizer
""",
    "kraft": """\
process.roles=broker,controller
node.id={node}
controller.quorum.voters={voters}
controller.listener.names=CONTROLLER
sasl.mechanism.controller.protocol=PLAIN
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
""",
}


def zookeeper() -> None:
    """Become ZooKeeper; where Kafka runs without it, wait and do nothing."""
    settings = ContainerSettings()
    if settings.kafka_mode == "kraft":
        click.echo("Kafka runs in KRaft mode: ZooKeeper is not needed, and not started", err=True)
        signal.pause()
        return
    folder = settings.data / "data"
    folder.mkdir(exist_ok=True)
    text = brokers.ZOOKEEPER.format(folder=folder, port=ZOOKEEPER_PORT) + _AUTHENTICATED
    config = write_whole(RUN / "zookeeper.properties", text, 0o600)
    password = quoted(settings.secret("zookeeper_password"))
    login = write_whole(RUN / "zookeeper.jaas", f"Server {{ {_DIGEST} user_kafka={password}; }};\n", 0o600)
    become_program(brokers.java(Settings(), "java", f"{_JAAS}{login}", *brokers.ZOOKEEPER_MAIN, str(config)))


def start() -> None:
    """Become the broker; users and rights are made by a child as soon as it answers."""
    settings, here = ContainerSettings(), Settings()
    remember_mode(settings)
    kraft = settings.kafka_mode == "kraft"
    config = write_whole(RUN / "kafka.properties", properties(settings), 0o600)
    login = RUN / "kafka.jaas"
    password = "" if kraft else quoted(settings.secret("zookeeper_password"))
    client = "" if kraft else f'Client {{ {_DIGEST} username="kafka" password={password}; }};\n'
    write_whole(login, client, 0o600)
    java = brokers.java(here, "java", f"{_JAAS}{login}")
    if kraft:
        _format(settings, java, config)
    subprocess.Popen([sys.executable, "-m", "containers", "kafka-access"])
    become_program([*java, "-Xmx384m", *brokers.agent(here, "0.0.0.0"), "kafka.Kafka", str(config)])


def remember_mode(settings: ContainerSettings) -> None:
    """Write the mode beside the data; UsageError where the data are of the other one."""
    place = settings.data / "mode"
    was = place.read_text() if place.exists() else ""
    if not was:  # an empty one was left by a kill, before there were data
        write_whole(place, settings.kafka_mode)
    elif was != settings.kafka_mode:
        raise UsageError(
            f"this broker's data are of the mode {was}, and TWOFOLD_KAFKA_MODE is {settings.kafka_mode}",
            f"set TWOFOLD_KAFKA_MODE={was}, or delete all data with `make compose-reset`",
        )


def properties(settings: ContainerSettings) -> str:
    """The broker's whole configuration. Holds passwords."""
    password = settings.secret("kafka_admin_password")
    admin = f"{login_module('PLAIN', ADMIN, password)[:-1]} user_{ADMIN}={quoted(password)};".replace("\\", "\\\\")
    logins = "".join(text.format(listener=listener, admin=admin) for listener, text in _LOGINS.items())
    text = brokers.BROKER + _LISTENERS + _MODES[settings.kafka_mode]
    return logins + text.format(
        folder=settings.data / "data",
        name=settings.kafka_name,
        node=settings.kafka_node,
        port=settings.kafka_port,
        local=kafka_local_port(settings.kafka_node),
        controller=f",CONTROLLER://:{CONTROLLER_PORT}" if settings.kafka_mode == "kraft" else "",
        voters=settings.kafka_voters,
        zookeeper=f"zookeeper:{ZOOKEEPER_PORT}",
        replication=settings.kafka_replication,
        in_sync=settings.kafka_in_sync,
    )


def _format(settings: ContainerSettings, java: Sequence[str], config: Path) -> None:
    """Give a new broker its storage; one that has it keeps it."""
    arguments = ["format", "--cluster-id", _CLUSTER, "--config", str(config), "--ignore-formatted"]
    made = subprocess.run(
        [*java, "-Xmx128m", "kafka.tools.StorageTool", *arguments], capture_output=True, text=True, check=False
    )
    if made.returncode:
        raise TwofoldError(f"Kafka's storage cannot be made: {(made.stdout + made.stderr).strip()}")
