"""ZooKeeper, which lets in nobody without the password; where Kafka runs without it, it waits and does nothing.

By hand: `python -m containers.zookeeper`
"""

from __future__ import annotations

import signal
from collections.abc import Sequence

import click

from containers.places import ZOOKEEPER_PORT
from containers.running import main
from containers.settings import ContainerSettings
from twofold.commands.become import become_program
from twofold.kafka import quoted
from twofold.settings import Settings
from twofold.stack import kafka
from twofold.stack.state import write_private

USER = "kafka"
_LOGIN = "org.apache.zookeeper.server.auth.DigestLoginModule required"
_MAIN = "org.apache.zookeeper.server.quorum.QuorumPeerMain"
_AUTHENTICATED = """\
authProvider.1=org.apache.zookeeper.server.auth.SASLAuthenticationProvider
sessionRequireClientSASLAuth=true
"""


def start(_arguments: Sequence[str]) -> None:
    """Become ZooKeeper."""
    settings = ContainerSettings()
    if settings.kafka_mode == "kraft":
        click.echo("Kafka runs in KRaft mode: ZooKeeper is not needed, and not started", err=True)
        signal.pause()
        return
    folder = settings.data / "data"
    folder.mkdir(exist_ok=True)
    text = kafka.ZOOKEEPER.format(folder=folder, port=ZOOKEEPER_PORT) + _AUTHENTICATED
    config = write_private(settings.run / "zookeeper.properties", text)
    login = write_private(settings.run / "zookeeper.jaas", server_login(settings.secret("zookeeper_password")))
    jars = Settings().jars / "kafka"
    options = ("-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", *kafka.JVM)
    become_program(
        ["java", *options, f"-Djava.security.auth.login.config={login}", "-cp", f"{jars}/*", _MAIN, str(config)]
    )


def server_login(password: str) -> str:
    """Who may log in to ZooKeeper."""
    return f"Server {{ {_LOGIN} user_{USER}={quoted(password)}; }};\n"


def client_login(password: str) -> str:
    """How a broker logs in to ZooKeeper."""
    return f"Client {{ {_LOGIN} username={quoted(USER)} password={quoted(password)}; }};\n"


if __name__ == "__main__":
    main(start)
