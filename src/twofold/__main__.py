"""Where the command `twofold` begins: in an environment of its own, before any other module is imported.

Manually: `twofold --help`, which is `python -m twofold --help`.
"""

from __future__ import annotations

from twofold import shell


def main() -> None:
    """Console entry."""
    shell.enter()
    # Not before: the shell may put a stranger in the place of any module.
    from twofold.cli import main as run

    run()


if __name__ == "__main__":
    main()
