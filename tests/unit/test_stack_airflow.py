"""Airflow's environment: its keys, and its way through supervisord's configuration."""

from __future__ import annotations

import configparser
import socket
from base64 import urlsafe_b64decode
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pydantic import SecretStr
from supervisor.datatypes import dict_of_key_value_pairs

from twofold import probes
from twofold.errors import TwofoldError
from twofold.settings import Settings
from twofold.stack import airflow_programs, supervisor
from twofold.stack.airflow_programs import airflow_environment
from twofold.stack.programs import Program


def settings(secret: str) -> Settings:
    return Settings(home=Path("/srv/a folder, 50% full"), airflow_secret=SecretStr(secret))


def test_keys_are_the_same_for_a_secret_and_differ_by_purpose_and_secret() -> None:
    names = ("AIRFLOW__CORE__FERNET_KEY", "AIRFLOW__API__SECRET_KEY", "AIRFLOW__API_AUTH__JWT_SECRET")
    first, again, other = (airflow_environment(settings(secret)) for secret in ("one", "one", "another"))
    assert [first[name] for name in names] == [again[name] for name in names]
    assert len({environment[name] for environment in (first, other) for name in names}) == 6
    assert len(urlsafe_b64decode(first[names[0]])) == 32


def test_supervisord_reads_every_variable_as_it_is() -> None:
    given = settings("one")
    text = supervisor.render(given, airflow_programs.programs(given))
    parser = configparser.RawConfigParser()
    parser.read_string(text)
    for program in airflow_programs.programs(given):
        read = dict_of_key_value_pairs(parser[f"program:{program.name}"]["environment"].replace("%%", "%"))
        assert read.items() >= dict(program.environment).items()
        assert "{" in read["AIRFLOW_CONN_SPARK_DEFAULT"]


@pytest.mark.parametrize("value", ["ends with '", "both ' and \" inside"])
def test_what_supervisord_cannot_read_is_refused(value: str) -> None:
    program = Program("p", "storage", ("true",), check=str, start_order=1, environment={"A": value})
    with pytest.raises(TwofoldError, match="cannot be given"):
        supervisor.render(settings("one"), [program])


@pytest.mark.parametrize("body", ["[]", "7", "{}", '{"metadatabase": null}', '{"metadatabase": "well"}'])
def test_another_program_on_the_port_of_airflow_is_told(body: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening, ThreadPoolExecutor(1) as beside:

        def respond() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(1 << 16)
                connection.sendall(f"HTTP/1.0 200 OK\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())

        done = beside.submit(respond)
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        assert "another program answers" in probes.airflow(url, "scheduler", lambda: 0.0)
        done.result()
