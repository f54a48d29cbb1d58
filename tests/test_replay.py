"""Kept source text in the place of what is importable, each time in a fresh process, as `tasks.run_backtest` has it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ntrader.errors import RunError, StrategyError
from ntrader.results import Execution
from ntrader.worker import Worker
from tests.factories import flat_bars, run_config

CLOSES = [100.0, 101.0, 99.0, 104.0, 98.0, 103.0, 97.0, 105.0, 96.0, 104.0]
MINE = """
from nautilus_trader.config import StrategyConfig
from nautilus_trader.model.data import BarType
from nautilus_trader.model.enums import OrderSide
from nautilus_trader.model.identifiers import InstrumentId
from nautilus_trader.trading.strategy import Strategy

from .rules import LIMIT


class MineConfig(StrategyConfig, frozen=True):
    instrument_id: InstrumentId
    bar_type: BarType


class Mine(Strategy):
    def on_start(self):
        self.subscribe_bars(self.config.bar_type)

    def on_bar(self, bar):
        if float(bar.close) > LIMIT:
            quantity = self.cache.instrument(self.config.instrument_id).make_qty(1)
            self.submit_order(self.order_factory.market(self.config.instrument_id, OrderSide.BUY, quantity))
"""

Run = Callable[..., Execution]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Execute `replayed_pkg.mine:Mine` over ten bars; with sources by `ntrader.replay`."""
    monkeypatch.chdir(tmp_path)
    worker = Worker()

    def once(sources: dict[str, str] | None = None, strategy: str = "replayed_pkg.mine:Mine") -> Execution:
        nonlocal worker
        worker.kill()
        worker = Worker()
        config = run_config(strategy={"path": strategy, "parameters": {}})
        asked: tuple[Any, ...] = (config, tmp_path, flat_bars(CLOSES))
        if sources is not None:
            asked = (config.snapshot(), tmp_path, flat_bars(CLOSES), sources)
        target = "ntrader.execution:execute" if sources is None else "ntrader.replay:execute"
        execution: Execution = worker.call(target, *asked)
        return execution

    yield once
    worker.kill()


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "replayed_pkg"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "mine.py").write_text(MINE)
    (folder / "rules.py").write_text("LIMIT = 102\n")
    return folder


def kept_of(execution: Execution) -> dict[str, str]:
    assert execution.inputs is not None
    return execution.inputs.sources


def test_what_was_kept_runs_and_not_what_is_there(run: Run, package: Path) -> None:
    first = run()
    (package / "rules.py").write_text("LIMIT = 100\n")

    again, now = run(kept_of(first)), run()

    assert again.result_digest == first.result_digest
    assert again.fingerprints == first.fingerprints
    assert now.result_digest != first.result_digest
    assert len(first.result.fills) == 3


def test_text_that_was_never_on_the_disk_runs_and_is_what_is_fingerprinted(run: Run, package: Path) -> None:
    first = run()
    changed = kept_of(first) | {"replayed_pkg.rules": "LIMIT = 103.5\n"}

    other = run(changed)

    assert len(other.result.fills) == 2
    assert kept_of(other) == changed
    assert other.fingerprints.code != first.fingerprints.code


def test_a_strategy_in_the_package_itself_runs(run: Run, package: Path) -> None:
    (package / "__init__.py").write_text(MINE)
    first = run(strategy="replayed_pkg:Mine")
    (package / "__init__.py").write_text("")

    assert run(kept_of(first), strategy="replayed_pkg:Mine").result_digest == first.result_digest


def test_a_module_that_nobody_saw_imported_is_taken_from_the_disk(run: Run, package: Path) -> None:
    """`importlib.import_module` of a computed name is not seen, and not kept."""
    (package / "extra.py").write_text("LIMIT = 102\n")
    (package / "rules.py").write_text(
        "import importlib\n\nLIMIT = importlib.import_module('.'.join(['replayed_pkg', 'extra'])).LIMIT\n"
    )
    first = run()
    assert "replayed_pkg.extra" not in kept_of(first)
    (package / "mine.py").unlink()

    assert run(kept_of(first)).result_digest == first.result_digest


def test_our_own_modules_run_as_they_were_too(run: Run, package: Path) -> None:
    first = run()
    sources = kept_of(first)
    name = "ntrader.trades"
    assert name in sources

    same = run(sources | {name: f"{sources[name]}\n# a comment\n"})
    other = run(sources | {name: f"{sources[name]}\n\ndef round_trips(fills):\n    return (), 7.0\n"})

    assert same.result_digest == first.result_digest
    assert same.fingerprints.code != first.fingerprints.code
    assert other.result.open_quantity == 7.0


def test_our_modules_of_then_that_do_not_fit_those_of_now_are_a_clear_error(run: Run, package: Path) -> None:
    sources = kept_of(run())

    with pytest.raises(RunError, match="the kept modules of ntrader do not run in this ntrader: ") as raised:
        run(sources | {"ntrader.trades": "nothing = 1\n"})

    assert raised.value.hint == "Install the ntrader of that time to run them."


def test_the_strategys_own_errors_stay_what_they_are(run: Run, package: Path) -> None:
    sources = kept_of(run())
    broken = sources["replayed_pkg.mine"].replace("self.subscribe_bars", "raise ValueError('no')  #")

    with pytest.raises(StrategyError, match="ValueError: no") as raised:
        run(sources | {"replayed_pkg.mine": broken})

    assert "<kept replayed_pkg.mine>" in str(raised.value.traceback_text)


def test_of_a_compiled_module_the_file_itself_has_to_be_what_it_was(run: Run, package: Path) -> None:
    sources = kept_of(run())

    with pytest.raises(RunError, match=r"the compiled module replayed_pkg\.fast is not what it was"):
        run(sources | {"replayed_pkg.fast": "0" * 64})
