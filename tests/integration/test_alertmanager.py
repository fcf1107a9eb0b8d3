"""Alertmanager with its real configuration: who is notified of what, once, and what nobody is notified of."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from monitoring.receiver import PORT
from tests.at_work import eventually
from tests.running import free_ports

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "monitoring" / "alertmanager" / "alertmanager.yml"


@dataclass(frozen=True)
class Alerting:
    """A running Alertmanager, and what its receiver printed."""

    url: str
    printed: Path

    def post(self, *names: str, ended: bool = False, **labels: str) -> None:
        """Alerts as Prometheus sends them."""
        now = datetime.now(UTC)
        times = {"startsAt": (now - timedelta(minutes=1)).isoformat(), **({"endsAt": now.isoformat()} if ended else {})}
        notes = {"summary": "It is so.", "loss": "Much.", "runbook": "docs/runbooks/a-page.md"}
        alerts = [{"labels": {"alertname": name, **labels}, "annotations": notes, **times} for name in names]
        body = json.dumps(alerts).encode()
        request = urllib.request.Request(f"{self.url}/api/v2/alerts", body, {"Content-Type": "application/json"})
        urllib.request.urlopen(request, timeout=60).close()

    def told(self) -> list[str]:
        return self.printed.read_text().splitlines()

    def ready(self) -> bool:
        try:
            return bool(urllib.request.urlopen(f"{self.url}/-/ready", timeout=1).status == 200)
        except OSError:
            return False


@pytest.fixture(scope="module")
def alerting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alerting]:
    folder, (receiver, port) = tmp_path_factory.mktemp("alertmanager"), free_ports(2)
    config = folder / "alertmanager.yml"
    quick = re.sub(r"(group_wait|group_interval): \w+", r"\1: 1s", CONFIG.read_text())
    config.write_text(quick.replace(str(PORT), str(receiver)))
    printed = folder / "printed"
    manager = ["prometheus-alertmanager", f"--config.file={config}", f"--storage.path={folder}"]
    listen = [f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address="]
    with ExitStack() as running, printed.open("w") as lines:
        for command, out in (
            ([sys.executable, str(ROOT / "monitoring" / "receiver.py"), "--port", str(receiver)], lines),
            ([*manager, *listen], subprocess.DEVNULL),
        ):
            process = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=subprocess.DEVNULL)
            running.callback(process.wait)
            running.callback(process.terminate)
        found = Alerting(f"http://127.0.0.1:{port}", printed)
        eventually(found.ready, every_s=0.1)
        yield found


def test_configuration_is_sound() -> None:
    subprocess.run(["amtool", "check-config", CONFIG], check=True)


def test_the_cause_is_told_and_what_follows_or_is_silenced_is_not(alerting: Alerting) -> None:
    amtool = ["amtool", "--alertmanager.url", alerting.url, "silence", "add", "--duration=1h", "--author=test"]
    subprocess.run([*amtool, "--comment=planned", "pipeline=flights", "alertname=~Late.+"], check=True)
    alerting.post("KafkaDown", severity="critical", job="kafka")
    alerting.post("StreamStalled", "ProducerDown", "LateHigh", severity="critical", pipeline="flights")
    alerting.post("UnionOverdue", severity="critical", pipeline="flights")
    for pipeline in ("flights", "payments"):
        alerting.post("BoundaryTooOld", severity="critical", pipeline=pipeline)
    eventually(lambda: len(alerting.told()) >= 4, every_s=0.2)
    # All groups wait equally long: after one that came later, nothing of the first ones is still to come.
    alerting.post("DiskLow", severity="warning")
    eventually(lambda: any("DiskLow" in line for line in alerting.told()), every_s=0.2)
    named = {line.split()[3] for line in alerting.told()}
    assert named == {"KafkaDown:", "ProducerDown:", "UnionOverdue:", "BoundaryTooOld:", "DiskLow:"}
    assert sum("BoundaryTooOld" in line for line in alerting.told()) == 1
    [line] = [line for line in alerting.told() if "KafkaDown" in line]
    assert line.endswith("firing critical KafkaDown: It is so. Lost: Much. See docs/runbooks/a-page.md")


def test_its_end_is_told(alerting: Alerting) -> None:
    alerting.post("DagImportErrors", severity="warning")
    eventually(lambda: any("firing warning DagImportErrors" in line for line in alerting.told()), every_s=0.2)
    alerting.post("DagImportErrors", severity="warning", ended=True)
    eventually(lambda: any("resolved warning DagImportErrors" in line for line in alerting.told()), every_s=0.2)
