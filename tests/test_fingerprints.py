"""Fingerprints change with what went in and with nothing else; the digest with every bit that came out."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ntrader import digest, fingerprints, sources
from ntrader.config import canonical_json, sha256
from ntrader.digest import result_digest
from ntrader.engine import identity
from ntrader.fingerprints import (
    code,
    documents,
    environment,
)
from ntrader.results import EquityCurve, Fill, RunResult
from ntrader.sources import reload_changed, remember, source_closure
from tests.factories import DAY, START, run_config, trade

SMA = "ntrader.strategies.sma_crossover:SMACrossover"

# The code


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the import path, as the current one is; what was imported from it is forgotten again."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sources, "_modules", {})
    monkeypatch.setattr(sources, "_closures", {})
    yield tmp_path
    for name, module in list(sys.modules.items()):
        if str(tmp_path) in str(getattr(module, "__file__", "")):
            del sys.modules[name]


def write(folder: Path, **files: str) -> None:
    """`pkg__mod="..."` is pkg/mod.py; a package's own file is `pkg____init__`."""
    for name, text in files.items():
        path = folder / f"{name.replace('__', '/', 1)}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)


def names(*modules: str) -> list[str]:
    return list(source_closure(modules))


def hashed_code(strategy_path: str) -> str:
    return documents(code(strategy_path), identity())["code"]


def fresh(strategy_path: str) -> str:
    """The code fingerprint as another process would see it."""
    sources._modules.clear()
    sources._closures.clear()
    return hashed_code(strategy_path)


@pytest.mark.parametrize(
    "statement",
    ["from . import helper", "from .helper import size", "import pkg.helper", "from pkg import helper",
     "from pkg.helper import size", "from .inner.helper import size", "def later():\n    import helper",
     "from helper import size", "import helper as h", "from .. import nothing\nimport helper"],
)  # fmt: skip
def test_the_code_changes_with_the_strategy_and_the_helper_it_imports(folder: Path, statement: str) -> None:
    write(folder, pkg____init__="", pkg__mine=f"{statement}\n", helper="size = 1\n", unrelated="x = 1\n")
    write(folder, pkg__helper="size = 1\n", pkg__unrelated="x = 1\n")
    inner = folder / "pkg" / "inner"
    inner.mkdir()
    (inner / "__init__.py").write_text("")
    (inner / "helper.py").write_text("size = 1\n")
    before = fresh("pkg.mine:Mine")

    write(folder, unrelated="x = 2\n", pkg__unrelated="x = 2\n")
    assert fresh("pkg.mine:Mine") == before

    for helper in (folder / "helper.py", folder / "pkg" / "helper.py", inner / "helper.py"):
        helper.write_text("size = 2\n")
    helped = fresh("pkg.mine:Mine")
    assert helped != before

    write(folder, pkg__mine=f"{statement}\n# more\n")
    assert fresh("pkg.mine:Mine") != helped


def test_a_helper_of_a_helper_counts(folder: Path) -> None:
    write(folder, mine="import one\n", one="from two import x\n", two="x = 1\n")
    assert names("mine") == ["mine", "one", "two"]


def test_modules_that_import_each_other_are_read_once(folder: Path) -> None:
    write(folder, mine="import other\n", other="import mine\n")
    assert names("mine") == ["mine", "other"]


def test_the_packages_above_a_module_count(folder: Path) -> None:
    write(folder, pkg____init__="import numpy\n", pkg__mine="")
    assert names("pkg.mine") == ["pkg", "pkg.mine"]


def test_installed_packages_and_the_standard_library_do_not_count(folder: Path) -> None:
    write(folder, mine="import json, numpy, pandas.io\nfrom nautilus_trader.config import StrategyConfig\n")
    assert names("mine") == ["mine"]


def test_looking_at_an_import_does_not_carry_it_out(folder: Path) -> None:
    write(folder, mine="def later():\n    import tomllib\n    from wsgiref import validate\n    import broken.inner\n")
    write(folder, broken____init__="raise SystemError\n", broken__inner="")
    before = set(sys.modules)
    assert names("mine") == ["broken", "broken.inner", "mine"]
    assert set(sys.modules) - before == set()


def test_a_package_without_an_init_file_counts(folder: Path) -> None:
    write(folder, pkg__mine="import pkg.helper\n", pkg__helper="")
    assert names("pkg.mine") == ["pkg.helper", "pkg.mine"]


@pytest.mark.parametrize(
    "content", ["\ufeffx = 1\n".encode(), "# coding: latin-1\nx = 'ä'\n".encode("latin-1"), b"x = 1\r\n"]
)
def test_every_encoding_that_python_reads_is_read(folder: Path, content: bytes) -> None:
    (folder / "mine.py").write_bytes(content)
    assert names("mine") == ["mine"]


def test_line_ends_do_not_count(folder: Path) -> None:
    (folder / "mine.py").write_bytes(b"x = 1\ny = 2\n")
    unix = fresh("mine:Mine")
    (folder / "mine.py").write_bytes(b"x = 1\r\ny = 2\r\n")
    assert fresh("mine:Mine") == unix


def test_a_helper_that_is_not_python_yet_does_not_break_the_fingerprint(folder: Path) -> None:
    write(folder, mine="def later():\n    import broken\n", broken="def (:\n")
    assert names("mine") == ["broken", "mine"]


def test_our_own_strategies_count_the_engine_and_not_the_storing_and_saying() -> None:
    found = names(SMA.partition(":")[0], "ntrader.engine")
    assert {"ntrader.engine", "ntrader.trades", "ntrader.strategies.sized", "ntrader.strategies.sma_crossover"} <= {
        *found
    }
    assert not {"ntrader.metrics", "ntrader.summary", "ntrader.strategies.momentum", "ntrader.settings"} & {*found}
    assert {name.partition(".")[0] for name in found} == {"ntrader"}


def test_another_strategy_is_other_code() -> None:
    assert hashed_code(SMA) != hashed_code("ntrader.strategies.momentum:Momentum")


def test_an_edit_counts_when_the_module_is_loaded_again_and_not_before(folder: Path) -> None:
    write(folder, mine="import helper\nvalue = helper.value\n", helper="value = 1\n")
    assert __import__("mine").value == 1
    before = hashed_code("mine:Mine")

    write(folder, helper="value = 22\n")
    assert hashed_code("mine:Mine") == before

    reload_changed("mine")
    assert __import__("mine").value == 22
    assert hashed_code("mine:Mine") != before


def test_what_has_not_changed_is_not_loaded_again(folder: Path) -> None:
    write(folder, mine="x = 1\n")
    module = __import__("mine")
    reload_changed("mine")
    assert sys.modules["mine"] is module


def test_an_edit_never_unloads_ntrader(folder: Path) -> None:
    write(folder, mine="import ntrader.errors\n")
    errors = __import__("mine").ntrader.errors
    remember("mine")
    write(folder, mine="import ntrader.errors  # edited\n")
    reload_changed("mine")
    assert "mine" not in sys.modules
    assert sys.modules["ntrader.errors"] is errors


# Engine and environment


def test_every_process_and_hash_seed_sees_the_same() -> None:
    program = (
        "from ntrader.engine import identity\n"
        "from ntrader.fingerprints import *\n"
        f"print(documents(code({SMA!r}), identity()))"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", program], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout.decode()
        for seed in ("1", "2")
    }
    assert seen == {f"{documents(code(SMA), identity())}\n"}


def test_the_environment_names_what_computes_and_what_that_needs() -> None:
    libraries = environment()["libraries"]
    assert isinstance(libraries, dict)
    assert {"nautilus-trader", "numpy", "pandas", "pyarrow", "msgspec", "python-dateutil"} <= libraries.keys()
    assert not {"prefect", "pytest", "rich"} & libraries.keys()
    assert libraries["numpy"] == np.__version__


# The run key


def test_the_run_key_changes_with_each_of_the_five() -> None:
    config, others = run_config(), documents(code(SMA), identity())
    seen = [fingerprints.fingerprints(config, "d" * 64, others)]
    assert fingerprints.fingerprints(run_config(), "d" * 64, documents(code(SMA), identity())) == seen[0]

    seen.append(fingerprints.fingerprints(run_config(seed=1), "d" * 64, others))
    seen.append(fingerprints.fingerprints(config, "e" * 64, others))
    for name in ("code", "engine", "environment"):
        seen.append(fingerprints.fingerprints(config, "d" * 64, others | {name: "something else"}))

    assert len({prints.run_key for prints in seen}) == 6
    for other in seen[1:]:
        different = [name for name, value in dataclasses.asdict(other).items() if value != getattr(seen[0], name)]
        assert len(different) == 2, "one input and the key"


def test_the_run_key_is_the_hash_of_the_other_five() -> None:
    prints = dataclasses.asdict(fingerprints.fingerprints(run_config(), "d" * 64, documents(code(SMA), identity())))
    assert prints.pop("run_key") == sha256(canonical_json(prints))


# The result digest

FILL = Fill(time=START, side="buy", quantity=10.0, price=100.0, fee=1.0, order_type="MARKET")


def result(**changes: Any) -> RunResult:
    equity = changes.pop("equity", [1.0, 2.0])
    times = changes.pop("times", [START, START + DAY])
    curve = EquityCurve(np.array(times, dtype=np.int64), np.array(equity, dtype=np.float64))
    values: dict[str, Any] = {"fills": (FILL, FILL), "trades": (trade(), trade())}
    return RunResult(
        **{"initial_capital": 1e5, "equity_curve": curve, "open_quantity": 0.0, "bars": 2, **values, **changes}
    )


def changed(value: object) -> Any:
    """The next value there is."""
    if isinstance(value, float):
        return float(np.nextafter(value, np.inf))
    return value + 1 if isinstance(value, int) else f"{value}x"


DIGEST = result_digest(result())


def test_equal_results_have_equal_digests() -> None:
    assert result_digest(result()) == DIGEST


def test_notes_are_no_part_of_a_result() -> None:
    assert result_digest(result(notes=("one order was denied",))) == DIGEST


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Fill)])
def test_the_smallest_change_of_a_fill_changes_the_digest(field: str) -> None:
    other = dataclasses.replace(FILL, **{field: changed(getattr(FILL, field))})
    assert result_digest(result(fills=(FILL, other))) != DIGEST


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(trade())])
def test_the_smallest_change_of_a_trade_changes_the_digest(field: str) -> None:
    other = dataclasses.replace(trade(), **{field: changed(getattr(trade(), field))})
    assert result_digest(result(trades=(trade(), other))) != DIGEST


@pytest.mark.parametrize(
    "changes",
    [
        {"equity": [1.0, changed(2.0)]},
        {"equity": [-0.0, 2.0]},
        {"equity": [2.0, 1.0]},
        {"times": [START, START + DAY + 1]},
        {"equity": [1.0], "times": [START]},
        {"initial_capital": changed(1e5)},
        {"fills": (FILL,)},
        {"trades": ()},
    ],
)
def test_the_smallest_change_elsewhere_changes_the_digest(changes: dict[str, Any]) -> None:
    assert result_digest(result(**changes)) != DIGEST


def test_a_whole_number_is_the_same_as_the_float() -> None:
    assert result_digest(result(fills=(FILL, dataclasses.replace(FILL, quantity=10)))) == DIGEST


def test_where_one_text_ends_and_the_next_begins_counts() -> None:
    one = dataclasses.replace(FILL, side="buy;", order_type="MARKET")
    two = dataclasses.replace(FILL, side="buy", order_type=";MARKET")
    packed = {digest._packed(row) for row in (one, two, FILL)}
    assert len(packed) == 3
    assert not any(a != b and b.startswith(a) for a in packed for b in packed)


def test_a_fill_is_never_taken_for_a_trade() -> None:
    nothing = result(fills=(), trades=())
    assert len({result_digest(row) for row in (nothing, result(fills=()), result(trades=()))}) == 3
