"""Real webhooks of GitHub, nested as they are, through both layers, their union, and the proof.

    npm's @octokit/webhooks-examples ─► deliveries ─┬─► Kafka ─► twofold stream ─┐
                                                    └─► file ──► twofold batch ──┴─► twofold union ─► answer, proof

No Airflow here, so it takes a minute. Manually: `make demo PIPELINE=webhooks`. Its state is in .twofold of the
checkout, recreated each time.
"""

from __future__ import annotations

from twofold import shell

if __name__ == "__main__":
    shell.enter()

import base64
import gzip
import hashlib
import json
import os
import shutil
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from demo.flights import HERE, HOME, fresh, say, twofold
from twofold.errors import as_sentences
from twofold.settings import cache_folder
from twofold.setup.cache import SetupError, cache_lock, publish, run, staging

PACKAGE, VERSION = "@octokit/webhooks-examples", "7.6.1"
INTEGRITY = "sha512-De6U3XB6O3DtCa7bKgCMzTHdeopqqZ6SNivMYJnK65ierKL1AnNIA0tkRYCRS7lwGT792d+Ps1WbfHlso6MynQ=="
BODIES = "package/api.github.com/index.json"
PIPELINE = "webhooks"
STREAMED, CORRECTED = 240, 60
"""How many are sent to Kafka; how many of these come as a file, too, and with them all the rest."""
FIRST_MS, EVERY_MS = 1_772_323_200_000, 1_800_000
"""When the first was received, 2026-03-01, and how much later each next one."""

ANSWER = """
SELECT event, count(*) AS deliveries, count(DISTINCT repository) AS repositories,
  count(*) FILTER (layer = 'batch') AS by_batch, max(json_array_length(commits)) AS most_commits
FROM webhooks.unified_events GROUP BY event ORDER BY deliveries DESC, event LIMIT 8
"""


def main() -> None:
    """Run the demonstration from an empty state; exit with the proof's exit code."""
    os.chdir(HERE)
    os.environ["TWOFOLD_PIPELINES"] = str(HERE / "examples")
    with as_sentences():
        lines = [json.dumps(delivery).encode() for delivery in deliveries(archive())]
    fresh()
    say("1. the data services: PostgreSQL, ZooKeeper, Kafka")
    twofold("up", "--no-airflow", "--no-monitoring")
    say(f"2. {STREAMED} of {len(lines)} deliveries go to Kafka, the rest and {CORRECTED} of the same come as a file")
    streamed, landed = HOME / "demo-files" / "streamed.jsonl", HOME / "demo-files" / "landed.jsonl.gz"
    streamed.parent.mkdir()
    streamed.write_bytes(b"\n".join(lines[:STREAMED]) + b"\n")
    landed.write_bytes(gzip.compress(b"\n".join(lines[STREAMED - CORRECTED :]) + b"\n"))
    twofold("produce", PIPELINE, "--from", str(streamed))
    twofold("stream", PIPELINE, "--until-caught-up")
    twofold("land", PIPELINE, str(landed))
    twofold("batch", PIPELINE)
    twofold("union", PIPELINE)
    say("3. the answer: deliveries by event, and how many of them the batch layer had")
    twofold("query", ANSWER)
    say("4. the proof")
    code = twofold("prove", PIPELINE, check=False)
    say("done; `make down` stops the stack" if code == 0 else "the proof FAILED")
    sys.exit(code)


def deliveries(packed: Path) -> Iterator[dict[str, Any]]:
    """Each body of the package as a relay of webhooks writes it: with headers' values, and when it was received."""
    with tarfile.open(packed) as files:
        found = files.extractfile(BODIES)
        assert found is not None
        kinds = json.load(found)
    number = 0
    for kind in kinds:
        for body in kind["examples"]:
            delivery = f"{kind['name']}-{number:04}"
            yield {
                "delivery": delivery,
                "event": kind["name"],
                "receivedAt": FIRST_MS + number * EVERY_MS,
                "body": body,
            }
            number += 1


def archive() -> Path:
    """The package as npm keeps it, in the user's cache; its content is held against its hash each time."""
    folder = cache_folder() / "npm" / f"webhooks-examples-{VERSION}"
    with cache_lock(cache_folder(), folder.name):
        if not any(folder.glob("*.tgz")):
            _fetch(folder)
        [packed] = folder.glob("*.tgz")
        if integrity(packed) != INTEGRITY:
            raise SetupError(
                f"{packed} is not {PACKAGE} {VERSION}: its hash differs", f"remove {folder}, and try again"
            )
    return packed


def _fetch(folder: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise SetupError(
            f"npm, which fetches the real webhooks ({PACKAGE}), is not installed", "install Debian's `npm`"
        )
    with staging(cache_folder(), folder.name) as stage:
        made = stage / "made"
        made.mkdir()
        command: list[str | Path] = [npm, "pack", f"{PACKAGE}@{VERSION}", "--silent", "--pack-destination", made]
        run(command, f"Fetching {PACKAGE} {VERSION}", stage / "log", "see that npm can reach its registry")
        publish(made, folder)


def integrity(file: Path) -> str:
    """The hash of a file's content, as npm writes it."""
    return f"sha512-{base64.b64encode(hashlib.sha512(file.read_bytes()).digest()).decode()}"


if __name__ == "__main__":
    main()
