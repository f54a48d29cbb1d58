"""What the documents say is what the code does."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
import yaml

from ntrader.config import RunRequest
from ntrader.resolve import resolve

ROOT = Path(__file__).parent.parent


def test_the_command_line_page_is_made_from_help() -> None:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)

    assert (ROOT / "docs" / "cli.md").read_text() == generate.page(), "run `make docs`"


@pytest.mark.parametrize("path", sorted((ROOT / "config" / "strategies").glob("*.yaml")), ids=lambda path: path.name)
def test_every_shipped_config_is_complete_and_valid(path: Path, tmp_path: Path) -> None:
    config = resolve(RunRequest(config_path=str(path)), tmp_path)

    assert config.data.source == "sample"
    assert yaml.safe_load(path.read_text())["strategy"] == path.stem


def test_every_link_within_the_documents_leads_somewhere() -> None:
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
    for page in pages:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to {target}"


def test_no_page_has_a_gap_to_be_filled() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        assert "@@" not in page.read_text(), page


def test_ci_calls_the_test_command_of_the_readme() -> None:
    assert "make test" in (ROOT / ".ci" / "run").read_text()
    assert "\nmake test\n" in (ROOT / "README.md").read_text()


def test_every_command_the_readme_names_exists() -> None:
    known = (ROOT / "docs" / "cli.md").read_text()
    named = re.findall(
        r"\bntrader ((?:history|strategy|data|db) [a-z]+|run-backtest|status|down)\b", (ROOT / "README.md").read_text()
    )
    assert named
    for words in named:
        assert f"## ntrader {words}\n" in known
