"""supervisord for the services of one container: Airflow starts, watches and restarts them through its RPC.

    Airflow ──XML-RPC, password──► supervisord ─► twofold produce <p> | twofold stream <p>
                                        └─► their logs, on the container's own output, too

Run manually: `python -m containers supervised`
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from containers.container_settings import RUN
from twofold import supervisord
from twofold.commands.become import become_program
from twofold.definition.load import load_sound
from twofold.definition.names import SERVICES
from twofold.local_files import write_whole
from twofold.settings import Settings

_SHOWN_LOGS = """
[program:shown-logs]
command={command}
autorestart=true
stdout_logfile=/dev/stdout
stdout_logfile_maxbytes=0
stderr_logfile=NONE
"""


def start() -> None:
    """Become supervisord."""
    settings = Settings()
    text = supervisord.configuration(
        home=settings.home,
        listen=f"0.0.0.0:{settings.supervisor_port}",
        login=(settings.supervisor_user, settings.supervisor_password.get_secret_value()),
        restarts_per_hour=settings.service_restarts_per_hour,
        nodaemon="true",
        logfile="/dev/null",
        logfile_maxbytes=0,
        pidfile=f"{RUN}/supervisord.pid",
        childlogdir=str(RUN),
    )
    shown = shlex.join(["tail", "-q", "-n", "0", "-F", *(str(log) for log in logs(settings))])
    text += _SHOWN_LOGS.format(command=supervisord.escape(shown))
    config = write_whole(RUN / "supervisord.conf", text, 0o600)
    become_program([sys.executable, "-m", "supervisor.supervisord", "-n", "-c", str(config)])


def logs(settings: Settings) -> list[Path]:
    """The log of every service that there may be; `tail` waits for the ones that do not exist yet."""
    names = load_sound(settings.pipelines)[0]
    return [supervisord.log_file(settings.home, f"{name}-{service}") for name in names for service in SERVICES]
