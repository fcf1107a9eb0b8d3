"""What a stranger reads first is true: the README's pipeline is sound, its commands and links are there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from twofold.cli import cli
from twofold.definition.load import check_file
from twofold.errors import UsageError

README = Path("README.md")
PAGES = [README, Path("CONTRIBUTING.md"), Path("AGENTS.md"), *sorted(Path("docs").rglob("*.md"))]


def test_the_pipeline_of_the_readme_is_sound(tmp_path: Path) -> None:
    [text] = re.findall(r"```yaml\n(.*?)```", README.read_text(), re.DOTALL)
    path = tmp_path / "clicks.yaml"
    path.write_text(text)
    pipeline, faults = check_file(path)
    assert not faults
    assert pipeline and list(pipeline.views) == ["per_page"]


def test_every_page_is_in_the_index() -> None:
    index = Path("docs/README.md").read_text()
    assert [page.name for page in Path("docs").glob("*.md") if f"({page.name})" not in index] == ["README.md"]


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_links_lead_somewhere(page: Path) -> None:
    """To a file, and where one is named to a heading in it."""
    for link, anchor in re.findall(r"\]\(([^)#]*)#?([^)]*)\)", page.read_text()):
        if "://" not in link:
            file = page.parent / link if link else page
            assert file.exists(), link
            headings = re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE) if file.suffix == ".md" else []
            anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert not anchor or anchor in anchors, f"{link}#{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_commands_are_there_with_their_options(page: Path) -> None:
    for words in re.findall(r"(?:^|[`(] *|&& )twofold ([a-z-]+)([^`\n|]*)", page.read_text(), re.MULTILINE):
        command = cli.get_command(click.Context(cli), words[0])
        assert command, f"twofold {words[0]}"
        options = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
        named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", words[1])) - {"--help", "--pipelines", "--home"}
        # What is handed through to another program is that program's to know.
        if not command.context_settings.get("ignore_unknown_options"):
            assert named <= options, f"twofold {words[0]}: {named - options}"


def test_help_has_examples() -> None:
    for name in cli.list_commands(click.Context(cli)):
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        if command.context_settings.get("ignore_unknown_options"):
            # It becomes another program: in this process that would be the end of the tests.
            said = subprocess.run([sys.executable, "-m", "twofold.cli", name, "--help"], capture_output=True, text=True)
            output = said.stdout
        else:
            output = CliRunner().invoke(cli, [name, "--help"]).output
        assert "Examples:" in output, name


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("services p --json --log", "--json prints no logs"),
        ("rejects p --to f --json", "leave out --json and --samples"),
        ("rejects p --to f --samples 0", "leave out --json and --samples"),
    ],
)
def test_options_of_which_one_would_do_nothing_are_refused(line: str, said: str) -> None:
    done = CliRunner().invoke(cli, line.split())
    assert (done.exit_code, said in done.stderr, done.stdout) == (2, True, "")


@pytest.mark.parametrize("asked", ["try payments -", "init q --from -", "query -"])
def test_a_standard_input_that_is_closed_is_told(asked: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It ended with a stack trace."""
    (tmp_path / "payments.yaml").write_text((Path(__file__).parents[1] / "pipelines" / "payments.yaml").read_text())
    monkeypatch.setenv("TWOFOLD_PIPELINES", str(tmp_path))
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(UsageError, match="standard input is closed"):
        cli.main(asked.split(), standalone_mode=False)
