"""What Airflow's database holds before its processes start: tables, roles, the administrator, the pool of Spark jobs.

One process, since every start of Airflow's command line takes seconds. Safe to repeat.

Run manually: `python -m twofold_airflow.metadata`, in the environment of Airflow's processes; `twofold up` runs it.
"""

from __future__ import annotations

from airflow.models.pool import Pool
from airflow.providers.fab.auth_manager.cli_commands.utils import get_application_builder
from airflow.utils.db import initdb

from twofold.settings import Settings
from twofold_airflow.wiring import SPARK_POOL

ROLE = "Admin"


def main() -> None:
    """Migrate or create the tables, then what is declared here."""
    settings = Settings()
    initdb()
    administrator(settings.airflow_user, settings.airflow_password.get_secret_value())
    Pool.create_or_update_pool(SPARK_POOL, slots=1, description="One Spark job at a time", include_deferred=False)


def administrator(name: str, password: str) -> None:
    """Create the administrator, or give the existing one the password in force."""
    with get_application_builder() as builder:
        users = builder.sm
        users.sync_roles()
        found = users.find_user(username=name)
        if found:
            users.reset_password(found.id, password)
        else:
            users.add_user(name, "Twofold", "Administrator", f"{name}@localhost", users.find_role(ROLE), password)


if __name__ == "__main__":
    main()
