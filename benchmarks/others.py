"""Other backtesters over the same grid: backtesting.py, vectorbt and backtrader, each as its documentation has it.

    python benchmarks/others.py TOOL JOB.npz

runs one of them in whatever interpreter has it, and prints a JSON object: seconds of a warm run of the whole grid,
`first` those of the first one in the process (imports not counted), and the final equity of each trial.

All of them buy 100 shares at the open after the fast average has crossed above the slow one, and sell them at the open
after it has crossed below.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

SHARES = 100
FOREIGN = {"vectorbt": "vectorbt>=1,<2", "backtrader": "backtrader>=1.9.78,<2"}
WHAT_THEY_ARE = """\
  ntrader's trials go through an event-driven engine (orders with a life, an account, stops and limits inside the bar,
  fees as configured), and each is saved with metrics, fills, trades and equity curve, to be shown, compared and
  reproduced like any run. The others keep what they find in memory until their process ends.
    vectorbt        wins by far where a strategy can be written as columns: the grid is a few passes of compiled code
                    over one matrix. It has no orders that wait and react, its memory grows with trials x bars, and the
                    first run in a process compiles.
    backtesting.py  bar by bar in Python, with a broker of a few hundred lines: little to do for a bar, and so fast on
                    short series; statistics of each run but no runs, nothing to go on with after a crash.
    backtrader      bar by bar in Python over indicators worked out beforehand; many order types and data feeds."""

Finals = list[float]


# What the benchmark calls


def install(folder: Path, say: Callable[[str], None]) -> Path | None:
    """An environment of their own for those that are no dependency of ours; None where they cannot be had."""
    python = folder / "bin" / "python"
    steps = (["uv", "venv", "-q", "-p", sys.executable, str(folder)],
             ["uv", "pip", "install", "-q", "-p", str(python), *FOREIGN.values()])  # fmt: skip
    try:
        for step in steps:
            subprocess.run(step, check=True, capture_output=True, text=True, timeout=600)
    except (OSError, subprocess.SubprocessError) as error:
        why = (getattr(error, "stderr", None) or str(error)).strip().splitlines()[-1]
        say(f"  {' and '.join(FOREIGN)} left out, they cannot be installed here: {why}")
        return None
    return python


def write_job(folder: Path, config: Any, pairs: Sequence[tuple[int, int]]) -> Path:
    from benchmarks.floor import NOWHERE
    from ntrader.data.load import load_bars

    bars = load_bars(config.data, NOWHERE)
    path = folder / "job.npz"
    columns = {name: getattr(bars, name) for name in ("times", "open", "high", "low", "close", "volume")}
    np.savez(path, pairs=np.array(pairs), capital=float(config.initial_capital), **columns)
    return path


def run_all(job: Path, python: Path | None, say: Callable[[str], None]) -> Iterator[tuple[str, dict[str, Any]]]:
    for tool in TOOLS:
        interpreter = python if tool in FOREIGN else Path(sys.executable)
        if interpreter is None:
            continue
        command = [str(interpreter), "-W", "ignore", __file__, tool, str(job)]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            say(f"  {tool} left out, it failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
            continue
        answer = json.loads(done.stdout.splitlines()[-1])
        say(f"  {tool}: {answer['seconds']:.2f} s, the first time {answer['first']:.2f} s")
        yield tool, answer


# What runs beside the tool. No ntrader here: it need not be installed.


def backtesting_py(job: Any) -> Callable[[], Finals]:
    import pandas as pd
    from backtesting import Backtest, Strategy
    from backtesting.lib import crossover

    def average(values: Any, count: int) -> Any:
        return pd.Series(values).rolling(count).mean()

    class Cross(Strategy):
        fast = 10
        slow = 50

        def init(self) -> None:
            self.quick = self.I(average, self.data.Close, self.fast)
            self.steady = self.I(average, self.data.Close, self.slow)

        def next(self) -> None:
            if crossover(self.quick, self.steady):
                self.buy(size=SHARES)
            elif crossover(self.steady, self.quick):
                self.position.close()

    # A pool of processes has to find the class.
    sys.modules["__main__"].Cross = Cross  # type: ignore[attr-defined]
    Cross.__qualname__ = "Cross"
    names = ("Open", "High", "Low", "Close", "Volume")
    index = pd.to_datetime(job["times"])
    frame = pd.DataFrame({name: job[name.lower()] for name in names}, index=index)
    test = Backtest(frame, Cross, cash=float(job["capital"]), trade_on_close=False)
    fast, slow = axes(job)

    def run() -> Finals:
        _, heat = test.optimize(fast=fast, slow=slow, maximize="Equity Final [$]", return_heatmap=True)
        by_pair = {(int(a), int(b)): float(final) for (a, b), final in heat.items()}
        # One that did not trade has no entry of its own.
        return [final_of(by_pair, pair, float(job["capital"])) for pair in job["pairs"].tolist()]

    return run


def final_of(finals: dict[tuple[int, int], float], pair: Sequence[int], capital: float) -> float:
    final = finals.get((pair[0], pair[1]), capital)
    return capital if np.isnan(final) else final


def vectorbt(job: Any) -> Callable[[], Finals]:
    import pandas as pd
    import vectorbt as vbt

    index = pd.to_datetime(job["times"])
    close, opened = pd.Series(job["close"], index=index), pd.Series(job["open"], index=index)
    fast, slow = job["pairs"].T.tolist()

    def run() -> Finals:
        quick = vbt.MA.run(close, window=fast, short_name="fast")
        steady = vbt.MA.run(close, window=slow, short_name="slow")
        entries = quick.ma_crossed_above(steady).shift(1, fill_value=False)
        exits = quick.ma_crossed_below(steady).shift(1, fill_value=False)
        portfolio = vbt.Portfolio.from_signals(
            close, entries, exits, price=opened, size=SHARES, init_cash=float(job["capital"]), freq="1D"
        )
        portfolio.sharpe_ratio()
        portfolio.max_drawdown()
        finals: Finals = portfolio.final_value().tolist()
        return finals

    return run


def backtrader(job: Any) -> Callable[[], Finals]:
    import backtrader as bt
    import pandas as pd

    class Cross(bt.Strategy):
        params = (("fast", 10), ("slow", 50))

        def __init__(self) -> None:
            fast, slow = bt.ind.SMA(period=self.p.fast), bt.ind.SMA(period=self.p.slow)
            self.crossed = bt.ind.CrossOver(fast, slow)

        def next(self) -> None:
            if self.crossed > 0:
                self.buy(size=SHARES)
            elif self.crossed < 0 and self.position:
                self.close()

    class Final(bt.Analyzer):
        def stop(self) -> None:
            self.rets["final"] = self.strategy.broker.getvalue()

    for kind in (Cross, Final):
        setattr(sys.modules["__main__"], kind.__name__, kind)
        kind.__qualname__ = kind.__name__
    names = ("open", "high", "low", "close", "volume")
    index = pd.to_datetime(job["times"]).floor("s")
    frame = pd.DataFrame({name: job[name] for name in names}, index=index)
    fast, slow = axes(job)

    def run() -> Finals:
        cerebro = bt.Cerebro(maxcpus=os.cpu_count())
        cerebro.adddata(bt.feeds.PandasData(dataname=frame))
        cerebro.broker.setcash(float(job["capital"]))
        cerebro.addanalyzer(Final, _name="final")
        cerebro.addanalyzer(bt.analyzers.SharpeRatio, timeframe=bt.TimeFrame.Days, _name="sharpe")
        cerebro.optstrategy(Cross, fast=fast, slow=slow)
        done = {(one.params.fast, one.params.slow): one.analyzers.final.rets["final"] for (one,) in cerebro.run()}
        return [done[fast, slow] for fast, slow in job["pairs"].tolist()]

    return run


TOOLS: dict[str, Callable[[Any], Callable[[], Finals]]] = {
    "backtesting.py": backtesting_py,
    "vectorbt": vectorbt,
    "backtrader": backtrader,
}


def axes(job: Any) -> tuple[list[int], list[int]]:
    fast, slow = (sorted(set(column)) for column in job["pairs"].T.tolist())
    return fast, slow


def main(tool: str, path: str) -> None:
    warnings.simplefilter("ignore")
    run = TOOLS[tool](np.load(path))
    seconds, finals = [], []
    for _ in range(2):
        began = time.perf_counter()
        finals = run()
        seconds.append(time.perf_counter() - began)
    print(json.dumps({"first": seconds[0], "seconds": min(seconds), "finals": finals}))


if __name__ == "__main__":
    main(*sys.argv[1:])
