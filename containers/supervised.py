"""supervisord for the services of one container: Airflow starts, watches and restarts them through its RPC.

    Airflow ──XML-RPC, password──► supervisord ─► twofold produce <p> | twofold stream <p>
                                        └─► their logs, on the container's own output, too

By hand: `python -m containers.supervised`
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from containers.running import main
from containers.settings import ContainerSettings
from twofold.commands.become import become_program
from twofold.definition.load import load_sound
from twofold.services.record import SERVICES
from twofold.settings import Settings
from twofold.stack.state import write_private
from twofold.stack.supervisor_text import escape

_CONFIG = """\
[supervisord]
nodaemon=true
logfile=/dev/null
logfile_maxbytes=0
pidfile={run}/supervisord.pid
childlogdir={run}

[inet_http_server]
port=0.0.0.0:{port}
username={user}
password={password}

[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface

[rpcinterface:twofold]
supervisor.rpcinterface_factory=twofold.services.inside:make
home={home}
restarts_per_hour={restarts_per_hour}

[program:shown-logs]
command={show}
autorestart=true
stdout_logfile=/dev/stdout
stdout_logfile_maxbytes=0
stderr_logfile=NONE
"""


def start(_arguments: Sequence[str]) -> None:
    """Become supervisord."""
    settings, run = Settings(), ContainerSettings().run
    text = _CONFIG.format(
        run=run,
        port=settings.supervisor_port,
        user=settings.supervisor_user,
        password=escape(settings.supervisor_password.get_secret_value()),
        home=escape(str(settings.home)),
        restarts_per_hour=settings.service_restarts_per_hour,
        show=escape(shlex.join(["tail", "-q", "-n", "0", "-F", *(str(log) for log in logs(settings))])),
    )
    config = write_private(run / "supervisord.conf", text)
    become_program([sys.executable, "-m", "supervisor.supervisord", "-n", "-c", str(config)])


def logs(settings: Settings) -> list[Path]:
    """The log of every service that there may be; `tail` waits for the ones that are not there."""
    folder = settings.home / "logs"
    return [folder / f"{name}-{service}.log" for name in load_sound(settings.pipelines)[0] for service in SERVICES]


if __name__ == "__main__":
    main(start)
