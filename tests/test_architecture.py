"""The rules that hold the tree together, checked by the tools that know them."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import grimp
import pytest

from ntrader.settings import Settings
from tests.storage import sweeps

ROOT = Path(__file__).parent.parent
PACKAGES = ("cli", "flows", "tasks", "storage", "ntrader")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
CONTRACTS = {contract["id"]: contract for contract in PYPROJECT["tool"]["importlinter"]["contracts"]}


def run(*command: str) -> subprocess.CompletedProcess[str]:
    """A tool of this environment, in the project's folder."""
    program = str(Path(sys.executable).parent / command[0])
    return subprocess.run([program, *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False)


def complaints(*command: str) -> str:
    result = run(*command)
    return "" if result.returncode == 0 else result.stdout + result.stderr


# Imports


@pytest.mark.parametrize("contract", CONTRACTS)
def test_import_contract(contract: str) -> None:
    assert complaints("lint-imports", "--no-cache", "--no-logo", "--contract", contract) == ""


def test_the_contracts_say_what_the_design_says() -> None:
    assert CONTRACTS["layers"]["layers"] == list(PACKAGES)
    assert {"prefect", "sqlalchemy", "sqlmodel", "psycopg", "alembic", "typer", "rich"} <= {
        *CONTRACTS["core"]["forbidden_modules"]
    }
    assert {"prefect", "nautilus_trader", "pandas"} <= {*CONTRACTS["storage"]["forbidden_modules"]}
    assert {"flows", "tasks", "prefect", "nautilus_trader", "pandas"} <= {*CONTRACTS["reading"]["forbidden_modules"]}
    reading = {
        f"cli.{name}"
        for name in ("history", "compare", "output", "sql", "formats", "standings", "trials")
        if (ROOT / "cli" / f"{name}.py").exists()
    }
    assert reading <= {*CONTRACTS["reading"]["source_modules"]}
    exceptions = {key: found["ignore_imports"] for key, found in CONTRACTS.items() if "ignore_imports" in found}
    assert exceptions == {key: ["ntrader.api -> storage.*"] for key in ("layers", "core")}
    assert (CONTRACTS["api"]["protected_modules"], CONTRACTS["api"]["allowed_importers"]) == (["ntrader.api"], [])


def test_the_linter_sees_imports_inside_functions() -> None:
    top = ast.parse((ROOT / "cli" / "db.py").read_text()).body
    assert not any((node.module or "").startswith("storage") for node in top if isinstance(node, ast.ImportFrom))
    graph = grimp.build_graph(*PACKAGES, cache_dir=None)
    assert graph.find_shortest_chain(importer="cli.db", imported="storage.migrations") is not None


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_re_export_nothing(package: str) -> None:
    for file in (ROOT / package).rglob("__init__.py"):
        statements = ast.parse(file.read_text()).body
        assert all(isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) for node in statements), file


def test_nothing_shadows_alembic() -> None:
    assert not (ROOT / "alembic" / "__init__.py").exists()


def test_every_folder_of_tests_is_a_package() -> None:
    folders = {file.parent for file in (ROOT / "tests").rglob("test_*.py")}
    assert [folder for folder in folders if not (folder / "__init__.py").exists()] == []


HEAVY = ("flows", "tasks", "prefect", "nautilus_trader", "pandas", "numpy", "sqlalchemy", "sqlmodel", "alembic")


def loaded(*words: str) -> tuple[str, str]:
    """What the command wrote, and its exit code with those of HEAVY that it loaded."""
    program = (
        "import sys\n"
        "from cli.main import main\n"
        "try:\n"
        f"    main({[*words]!r})\n"
        "except SystemExit as end:\n"
        f"    found = [name for name in {HEAVY!r} if name in sys.modules]\n"
        "    print(end.code, found, file=sys.stderr)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, env=os.environ
    )
    return result.stdout, result.stderr.splitlines()[-1]


def test_listing_runs_loads_neither_prefect_nor_the_engine(environment: Settings) -> None:
    out, said = loaded("history", "list", "--json")
    page: dict[str, object] = {"runs": [], "next_page_token": None, "total": 0, "total_is_exact": True}
    assert (json.loads(out), said) == (page, "0 []")


def test_neither_does_looking_at_sweeps(environment: Settings) -> None:
    number = sweeps.stored(environment, [0.1])
    for words in (("sweep", "list"), ("sweep", "status"), ("history", "show", "@best:1")):
        assert loaded(*words, "--json")[1] == "0 []", words
    # The points of trials are checked when they are read, and that takes pydantic and numpy.
    out, said = loaded("sweep", "show", "@last", "--json")
    assert (json.loads(out)["sweep"]["id"], said) == (number, "0 ['numpy']")


def test_the_flow_of_a_sweep_leaves_the_engine_to_its_workers() -> None:
    program = f"import sys, flows.sweep; print([name for name in {HEAVY!r} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout == "['flows', 'tasks', 'prefect', 'numpy']\n"


# Style and types


def test_ruff_has_no_complaint() -> None:
    assert complaints("ruff", "check", "--no-cache", "--output-format", "concise") == ""


def test_ruff_would_format_nothing_differently() -> None:
    assert complaints("ruff", "format", "--no-cache", "--check") == ""


def test_mypy_has_no_complaint() -> None:
    assert complaints("mypy") == ""
