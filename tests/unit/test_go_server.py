"""The script that builds Go servers takes the machine's Go where that is new enough, else one from a wheel."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from twofold.setup import servers

SCRIPT = Path(servers.__file__).with_name("go-server")
GO = '#!/bin/sh\nif [ "$1" = env ]; then echo "$SAID"; else echo "machine: $*"; touch "$GOBIN/minio"; fi\n'
WHEEL_GO = "#!/bin/sh\\necho wheel: $*\\ntouch $GOBIN/minio\\n"
PYTHON = f"""#!/bin/sh
for made; do case $made in */toolchain) break ;; esac; done
mkdir -p "$made/go/bin"
printf '{WHEEL_GO}' > "$made/go/bin/go"
chmod +x "$made/go/bin/go"
"""


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def built(folder: Path, said: str, *more: Path, **variables: str) -> str:
    program(folder / "bin" / "go", GO)
    path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    command: list[str | Path] = ["sh", SCRIPT, "minio", folder / "out", *more]
    environment = {**os.environ, "PATH": path, "SAID": said, **variables}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert (folder / "out" / "minio").exists()
    return done.stdout


@pytest.mark.parametrize(
    ("said", "whose"),
    [("go1.26.8", "machine"), ("go1.25rc1", "machine"), ("go1.9", "wheel"), ("devel +abc", "wheel"), ("", "wheel")],
)
def test_whose_go_builds(tmp_path: Path, said: str, whose: str) -> None:
    python = program(tmp_path / "bin" / "python", PYTHON)
    assert built(tmp_path, said, tmp_path / "cache" / "go" / "minio", python).startswith(f"{whose}: install")


def test_an_image_takes_what_the_host_has_built(tmp_path: Path) -> None:
    program(tmp_path / "built" / servers.binary_path("minio").name, "#!/bin/sh\n")
    assert built(tmp_path, "", BUILT=str(tmp_path / "built")) == ""
    assert "install" in built(tmp_path, "", BUILT=str(tmp_path / "nowhere"))
