"""`python -m containers ENTRY …`: become the program of a container, or set up what the others need.

Airflow's own command line: `docker compose exec airflow-scheduler python -m containers airflow cli dags list`
"""

from __future__ import annotations

import pkgutil
import sys

from twofold.errors import UsageError, as_sentences

# Found by name, as no image has all that all of them need.
ENTRIES = {
    "secrets": "containers.secrets:start",
    "store": "containers.store:start",
    "zookeeper": "containers.broker:zookeeper",
    "kafka": "containers.broker:start",
    "kafka-access": "containers.broker_access:start",
    "spark": "containers.cluster:spark",
    "airflow": "containers.cluster:airflow",
    "supervised": "containers.supervised:start",
}


def main() -> None:
    """Run the entry that the first argument names with the others; a known fault is one sentence."""
    with as_sentences():
        name = sys.argv[1] if len(sys.argv) > 1 else ""
        if name not in ENTRIES:
            raise UsageError(f"there is no entry {name!r}", f"say one of {', '.join(ENTRIES)}")
        pkgutil.resolve_name(ENTRIES[name])(*sys.argv[2:])


if __name__ == "__main__":
    main()
