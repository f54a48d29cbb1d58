"""Sweeps beside a hand-written loop at its best, naive Nautilus and other tools; what they keep, share and remember.

    uv run python -m benchmarks.sweep [--quick] [--only ratio,command,again,memory,scaling,others] [--rounds 5]
        [--cases days,years,minutes]

    ratio     wall time of a sweep, everything saved, Prefect and PostgreSQL at work, over that of a hand-written loop
              in two warm processes that keeps its results in memory (benchmarks/floor.py); where the difference goes
    command   `ntrader sweep run` as a whole, from a cold start of its process, beside the same loop
    again     the same sweep a second time, and with one bar changed
    memory    of a worker over 2,000 trials, of the flow's process with 500 and 5,000
    scaling   two workers beside one, and beside stock Nautilus in two processes
    others    backtesting.py, vectorbt and backtrader over the same grid and bars

What is compared alternates, a sweep between two laps of the loop; medians of ratios. Printed with each figure: how
much CPU time other programs used meanwhile. Everything happens in an NTRADER_HOME of its own, which is gone at the end.
Services are up and the flow's process has imported everything before a clock starts; workers are forked by each sweep
from a fork server that has the engine, build their bars then, and end with it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path

from benchmarks import floor, others, processes
from benchmarks.floor import PROCESSES, Lap, Loop
from benchmarks.one_sweep import CAPITAL, SIZING, Case, Swept, launch, sweep
from benchmarks.processes import Spent
from ntrader.config import RunConfig
from ntrader.settings import Settings, load_settings
from ntrader.worker import default_worker
from storage.database import reading
from storage.sweeps import all_trials

KINDS = ("ratio", "command", "again", "memory", "scaling", "others")
COMMAND = "from cli.main import main; main()"
PEAK = "import sys; from benchmarks.sweep import print_peaks; print_peaks(sys.argv[1])"


@dataclass(frozen=True)
class Plan:
    """What to run, in its long or its short form."""

    quick: bool
    rounds: int
    cases: tuple[str, ...] = ("days", "years", "minutes")

    def days(self, sizing: str = "fixed") -> Case:
        """2,000 trials on a year of days."""
        slow = "27:106:1" if not self.quick else "27:106:10"
        return Case(250, "2:26:1", slow, sizing, asked=1.15, real=True)

    def years(self, sizing: str = "fixed") -> Case:
        """500 trials on thirteen years of days."""
        return Case(3_270, "5:24:1", "50:170:5" if not self.quick else "50:170:60", sizing, asked=1.05)

    def minutes(self, sizing: str = "fixed") -> Case:
        """40 trials on ten weeks of minutes."""
        bars, slow = (20_000, "60:200:140") if self.quick else (100_000, "60:200:20")
        return Case(bars, "10:50:10", slow, sizing, timeframe="1-MINUTE", asked=1.02, verify=False)

    def thousand(self, sizing: str = "fixed") -> Case:
        return Case(250, "5:24:1", "50:99:1" if not self.quick else "50:99:10", sizing, real=True)

    def ratios(self) -> Iterator[tuple[Case, int]]:
        """Each with its number of rounds: the shorter a run, the more it is disturbed."""
        for name, share in (("days", 5), ("years", 3), ("minutes", 2)):
            for sizing in SIZING if name in self.cases else ():
                yield getattr(self, name)(sizing), -(-self.rounds * share // 5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="A tenth of the trials, one round: does it run at all?")
    parser.add_argument("--only", default=",".join(KINDS), help=f"Some of: {', '.join(KINDS)}.")
    parser.add_argument("--cases", default="days,years,minutes", help="Of the ratio, some of: days, years, minutes.")
    parser.add_argument("--rounds", type=int, help="Rounds of the shortest case (5); longer ones have fewer.")
    arguments = parser.parse_args()
    wanted = arguments.only.split(",")
    if unknown := set(wanted) - set(KINDS):
        parser.error(f"--only: there is no {', '.join(sorted(unknown))}; known: {', '.join(KINDS)}")
    warnings.simplefilter("ignore")
    plan = Plan(arguments.quick, arguments.rounds or (1 if arguments.quick else 5), tuple(arguments.cases.split(",")))
    shows: dict[str, Callable[[Settings, Plan], None]] = {
        "ratio": show_ratios, "command": show_commands, "again": show_again, "memory": show_memory,
        "scaling": show_scaling, "others": show_others,
    }  # fmt: skip
    with at_home() as settings:
        tell(f"{len(os.sched_getaffinity(0))} cores, {processes.load()}; {'quick' if plan.quick else 'full'} form")
        for kind in KINDS:
            if kind in wanted:
                tell()
                shows[kind](settings, plan)


@contextmanager
def at_home() -> Iterator[Settings]:
    """A home of its own with everything warm, whatever is configured outside."""
    home = Path(tempfile.mkdtemp(prefix="ntrader-benchmark-"))
    for name in ("DATABASE_URL", "PREFECT_API_URL", "ENABLE_BACKTEST_PERSISTENCE"):
        os.environ.pop(name, None)
    os.environ["NTRADER_HOME"] = str(home)
    settings = load_settings()
    try:
        launch(settings, Case(250, "5,10", "50,60", real=True))
        yield settings
    finally:
        command(["down"])
        shutil.rmtree(home, ignore_errors=True)


def tell(line: str = "") -> None:
    print(line, flush=True)


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def command(words: Sequence[str]) -> tuple[float, str]:
    """How long it took, and what it printed."""
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", COMMAND, *words], check=True, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    return time.perf_counter() - began, done.stdout


def spread(values: Sequence[float], digits: int = 2) -> str:
    """The median, then all of them in order."""
    each = ", ".join(f"{value:.{digits}f}" for value in sorted(values))
    return f"{statistics.median(values):.{digits}f}  ({each})"


def listed(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.2f}" for name, value in values.items())


def verdict(median: float, asked: float | None, *, at_least: bool = False) -> str:
    if asked is None:
        return ""
    holds = median >= asked if at_least else median <= asked
    return f"asked {'>=' if at_least else '<='} {asked:g}: {'yes' if holds else 'NO'}"


# Ratio: a sweep beside the hand-written loop


@dataclass
class Round:
    """A sweep between two laps of the hand-written loop over the same trials: their mean is what it is compared with,
    so that a machine that grows slower or faster meanwhile favours neither."""

    laps: tuple[Lap, Lap]
    floor_spent: Spent
    swept: Swept

    @property
    def floor_seconds(self) -> float:
        return statistics.mean(lap.seconds for lap in self.laps)

    @property
    def floor_cpu(self) -> float:
        return statistics.mean(lap.cpu for lap in self.laps)

    @property
    def ratio(self) -> float:
        return self.swept.spent.seconds / self.floor_seconds

    @property
    def cpu_ratio(self) -> float:
        return self.swept.spent.total / self.floor_cpu


def show_ratios(settings: Settings, plan: Plan) -> None:
    tell("RATIO: wall time, sweep / hand-written loop")
    for case, count in plan.ratios():
        say_costs(case)
        rounds = list(rounds_of(settings, case, count))
        show_ratio(case, rounds)
        if not case.verify:
            show_verification(settings, case, rounds)


def config_of(case: Case) -> RunConfig:
    """Resolved where the engine is loaded: this process need not have it."""
    config: RunConfig = default_worker().call("ntrader.resolve:resolve", case.request, floor.NOWHERE)
    return config


def lap(case: Case, kind: str, pairs: Sequence[floor.Pair] | None = None) -> tuple[Lap, Spent]:
    spent = Spent()
    with processes.bystanders(spent):
        done = floor.run(Loop(kind, config_of(case), tuple(pairs or case.pairs)))
        spent.seconds, spent.cpu = done.seconds, {"loop": done.cpu}
    return done, spent


def say_costs(case: Case) -> None:
    """Of a trial in the loop, and in one around our own engine."""
    some = case.pairs[:: max(1, len(case.pairs) // (100 if case.bars < 1_000 else 4))]
    kinds = ("direct", "engine")
    cost: dict[str, list[float]] = {kind: [] for kind in kinds}
    for number in range(3 if case.bars < 10_000 else 1):
        for kind in kinds if number % 2 == 0 else reversed(kinds):
            cost[kind].append(lap(case, kind, some)[0].cpu / len(some))
    say(f"  {case}: " + ", ".join(f"{kind} {1e3 * min(each):.2f} ms of CPU a trial" for kind, each in cost.items()))


def rounds_of(settings: Settings, case: Case, count: int) -> Iterator[Round]:
    """Each with a capital of its own, or the second sweep would find the trials of the first."""
    before, _ = lap(case, "direct")
    for number in range(count):
        this = replace(case, capital=CAPITAL + number)
        swept = sweep(settings, this)
        after, spent = lap(this, "direct")
        done = Round((before, after), spent, swept)
        require_equal(settings, this, done)
        say(
            f"  {this}: loop {before.seconds:.2f} and {after.seconds:.2f} s (others {spent.others:.1f}), sweep"
            f" {swept.spent.seconds:.2f} s (others {swept.spent.others:.1f}), ratio {done.ratio:.3f}, of CPU"
            f" {done.cpu_ratio:.3f}, {processes.load()}"
        )
        yield done
        before = after


def require_equal(settings: Settings, case: Case, done: Round) -> None:
    """Both must have done the same work, or the comparison means nothing."""
    found = finals(settings, done.swept)
    expected = done.laps[1].equity
    assert found.keys() == expected.keys() == set(case.pairs)
    wrong = [pair for pair, final in found.items() if round(final, 2) != round(expected[pair], 2)]
    if wrong:
        raise SystemExit(f"{case}: loop and sweep do not agree on the final equity of {len(wrong):,} trials")


def show_ratio(case: Case, rounds: Sequence[Round]) -> None:
    ratios = [each.ratio for each in rounds]
    trials = len(case.pairs)
    loop = statistics.median(each.floor_seconds for each in rounds)
    ours = statistics.median(each.swept.spent.seconds for each in rounds)
    tell()
    tell(str(case))
    tell(f"  loop   {loop:8.2f} s  {trials / loop:7.1f} trials/s, all in memory")
    tell(f"  sweep  {ours:8.2f} s  {trials / ours:7.1f} trials/s, all saved{', best verified' if case.verify else ''}")
    tell(f"  ratio  {spread(ratios, 3)}   {verdict(statistics.median(ratios), case.asked)}")
    tell(f"  of CPU {spread([each.cpu_ratio for each in rounds], 3)}")
    show_breakdown(min(rounds, key=lambda each: abs(each.ratio - statistics.median(ratios))), trials)


def show_breakdown(one: Round, trials: int) -> None:
    """Of the round in the middle: where its wall time and its CPU time went."""
    swept, lap_ = one.swept, one.laps[1]
    phases = swept.phases()
    tell(
        "  wall time of the sweep in the middle, s: "
        + ", ".join(f"{name} {value:.2f}" for name, value in phases.items())
    )
    tell(
        f"  a trial, wall ms: in the loop {1e3 * PROCESSES * lap_.seconds / trials:.2f}, in a worker"
        f" {1e3 * swept.busy / trials:.2f}, with what is around it"
        f" {1e3 * PROCESSES * phases.get('trials', 0) / trials:.2f}, saving it"
        f" {1e3 * PROCESSES * phases.get('saving', 0) / trials:.2f}"
    )
    tell(
        f"  CPU s: loop {lap_.cpu:.2f} (its bars built before: {lap_.building:.2f}); sweep {swept.spent.total:.2f} ="
        f" {listed(swept.spent.cpu)}"
    )
    tell(
        f"  CPU s of others meanwhile: {one.floor_spent.others:.1f} beside the loop,"
        f" {swept.spent.others:.1f} beside the sweep"
    )


def show_verification(settings: Settings, case: Case, rounds: Sequence[Round]) -> None:
    """Everything is there already but the verdict."""
    verified = sweep(settings, replace(case, verify=True))
    trial = statistics.median(PROCESSES * each.floor_seconds / len(case.pairs) for each in rounds)
    tell(f"  verifying the best trial takes {verified.verifying:.2f} s more; a trial in the loop {trial:.2f} s")


# Command: from a cold start


def show_commands(settings: Settings, plan: Plan) -> None:
    tell("COMMAND: `ntrader sweep run` from a cold start, services up")
    for case, rounds in ((plan.days(), max(1, plan.rounds // 2)), (plan.years(), max(1, plan.rounds // 3))):
        ratios, seconds = [], []
        for number in range(rounds):
            this = replace(case, capital=2 * CAPITAL + number)
            first = lap(this, "direct")[0].seconds
            seconds.append(command(this.words)[0])
            ratios.append(seconds[-1] / first)
            say(f"  {this}: loop {first:.2f} s, command {seconds[-1]:.2f} s, {processes.load()}")
        tell(f"  {case}: {statistics.median(seconds):.2f} s, command / loop {spread(ratios)}")


# Again: the same sweep a second time


def show_again(settings: Settings, plan: Plan) -> None:
    tell("AGAIN: what is stored is not run again")
    case = plan.thousand()
    sweep(settings, case)
    before, calls, verified = runs(settings), [], 0
    for _ in range(plan.rounds):
        swept = sweep(settings, case)
        assert swept.linked == len(case.pairs)
        verified += swept.verified
        calls.append(swept.spent.seconds)
        say(f"  call {calls[-1]:.2f} s: {listed(swept.phases())}")
    commands = [command(case.words)[0] for _ in range(plan.rounds)]
    start = [imports() for _ in range(plan.rounds)]
    made = runs(settings) - before
    tell(f"  {case}: {made} new runs, {verified} runs of the best trial to verify it in {plan.rounds} calls")
    tell(f"  call     {spread(calls)} s   {verdict(statistics.median(calls), 2.0)}")
    tell(f"  command  {spread(commands)} s   {verdict(statistics.median(commands), 2.0)}")
    tell(f"  of that, a process that only imports Prefect and the engine: {spread(start)} s")
    show_changed(settings, case)


def runs(settings: Settings) -> int:
    with reading(settings) as connection:
        row = connection.execute("SELECT count(*) AS n FROM backtest_runs").fetchone()
    assert row is not None
    number: int = row["n"]
    return number


def imports() -> float:
    began = time.perf_counter()
    code = "import prefect, nautilus_trader.backtest.engine"
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, stderr=subprocess.DEVNULL)
    return time.perf_counter() - began


def show_changed(settings: Settings, case: Case) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bars.csv"
        this = replace(case, csv=str(path), real=False)
        prices = [round(100 + random.Random(number).uniform(-5, 5), 2) for number in range(case.bars)]
        write_csv(path, prices)
        sweep(settings, this)
        again = sweep(settings, this)
        prices[case.bars // 2] += 0.01
        write_csv(path, prices)
        before = runs(settings)
        changed = sweep(settings, this)
        made = runs(settings) - before
    tell(f"  a csv file: again {again.linked:,} of {len(case.pairs):,} found; one close 0.01 higher:"
         f" {changed.linked:,} found, {made:,} new runs")  # fmt: skip


def write_csv(path: Path, closes: Sequence[float]) -> None:
    rows = [
        f"{date(2000, 1, 3) + timedelta(days=number)},{close:.2f},{close + 1:.2f},{close - 1:.2f},{close:.2f},1000000"
        for number, close in enumerate(closes)
    ]
    path.write_text("\n".join(["time,open,high,low,close,volume", *rows]) + "\n")


# Memory


def show_memory(settings: Settings, plan: Plan) -> None:
    tell("MEMORY")
    show_worker(settings, plan)
    show_bars(settings, plan)
    show_parent(plan)


def show_worker(settings: Settings, plan: Plan) -> None:
    """All trials in one worker."""
    case = replace(plan.days("risk"), capital=3 * CAPITAL)
    trials = len(case.pairs)
    step = trials // 10
    samples = dict(sweep(settings, case, workers=1, step=step).samples)
    shown = {count: samples[count] for count in (step, 2 * step, 5 * step, 10 * step)}
    for name in ("resident", "private"):
        sizes = ", ".join(f"after {count:,} {mb(each[name])}" for count, each in shown.items())
        growth = samples[trials][name] / samples[step][name]
        tell(f"  one worker, {trials:,} trials on {case.bars} bars, {name}: {sizes}; x {growth:.3f}"
             f"   {verdict(growth, 1.1)}")  # fmt: skip


def show_bars(settings: Settings, plan: Plan) -> None:
    """What a trial leaves behind beside the size of its bars."""
    bars = 20_000
    case = Case(bars, "5:24:1", "50:70:10" if not plan.quick else "50", "fixed", timeframe="1-MINUTE", verify=False)
    trials = len(case.pairs)
    samples = dict(sweep(settings, case, workers=1, step=trials // 4).samples)
    first, last = trials // 4, trials // 4 * 4
    grown = (samples[last]["private"] - samples[first]["private"]) / (last - first)
    tell(f"  on {bars:,} minute bars a trial adds {grown / 1e3:,.0f} kB to its worker; its bars are"
         f" {bars * 6 * 8 / 1e3:,.0f} kB as columns, and several times that as events")  # fmt: skip


def show_parent(plan: Plan) -> None:
    """Ten times the trials, each in a process of its own."""
    peaks = {}
    for slow in ("60:61:1", "60:69:1") if plan.quick else ("60:69:1", "60:159:1"):
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", PEAK, slow], check=True, text=True, stdout=subprocess.PIPE
        )
        trials, flow, planner = json.loads(done.stdout.splitlines()[-1])
        peaks[trials] = flow
        tell(
            f"  {trials:,} trials on 170 bars: peak of the flow's process {mb(flow)}, of the planning one {mb(planner)}"
        )
    growth = peaks[max(peaks)] / peaks[min(peaks)]
    tell(f"  the flow's process x {growth:.3f}   {verdict(growth, 1.1)}")


def print_peaks(slow: str) -> None:
    """What `show_parent` asks a process of its own for."""
    case = Case(170, "3:52:1", slow, "fixed", verify=False, capital=4 * CAPITAL)
    launch(load_settings(), case)
    peak = [processes.memory(pid)["peak"] for pid in (os.getpid(), processes.pid_of(default_worker()))]
    print(json.dumps([len(case.pairs), *peak]))


def mb(size: float) -> str:
    return f"{size / 1e6:,.0f} MB"


# Scaling


def show_scaling(settings: Settings, plan: Plan) -> None:
    tell("SCALING: two workers")
    for number, case in enumerate((plan.days(), plan.years())):
        show_one_worker(settings, replace(case, capital=(5 + number) * CAPITAL), plan)
    for sizing in SIZING:
        for number, case in enumerate((plan.days(sizing), plan.years(sizing))):
            show_stock(settings, replace(case, capital=(7 + number) * CAPITAL), plan)


def show_one_worker(settings: Settings, case: Case, plan: Plan) -> None:
    ratios = []
    for number in range(plan.rounds):
        seconds: dict[int, float] = {}
        for workers in (1, 2) if number % 2 == 0 else (2, 1):
            this = replace(case, capital=case.capital + 2 * number + workers)
            seconds[workers] = sweep(settings, this, workers=workers).spent.seconds
        ratios.append(seconds[1] / seconds[2])
        say(f"  {case}: one worker {seconds[1]:.2f} s, two {seconds[2]:.2f} s, {processes.load()}")
    tell(f"  {case}: two workers are {spread(ratios)} times as fast as one"
         f"   {verdict(statistics.median(ratios), 1.8, at_least=True)}")  # fmt: skip


def show_stock(settings: Settings, case: Case, plan: Plan) -> None:
    """Of the stock loop only some trials: it would take as long as all the rest."""
    trials = len(case.pairs)
    some = case.pairs[:: max(1, trials // (100 if case.bars < 1_000 else 16))]
    times: dict[str, list[float]] = {"stock": [], "stock-open": []}
    for number in range(max(1, plan.rounds // 2)):
        this = replace(case, capital=case.capital + number)
        rates = {kind: len(some) / lap(this, kind, some)[0].seconds for kind in times}
        ours = trials / sweep(settings, this).spent.seconds
        for kind, each in times.items():
            each.append(ours / rates[kind])
        say(f"  {case}, trials/s: {listed(rates)}, sweep {ours:.1f}, {processes.load()}")
    for kind, what in (("stock", "bars only, fills at the signal's close"), ("stock-open", "fills at the next open")):
        median = statistics.median(times[kind])
        tell(f"  {case}: {spread(times[kind])} times stock Nautilus in two processes ({what})"
             f"   {verdict(median, 2.5, at_least=True)}")  # fmt: skip


# Others


def show_others(settings: Settings, plan: Plan) -> None:
    tell("OTHERS: the same grid and bars, fixed size, orders at the next open; trials a second")
    with tempfile.TemporaryDirectory() as folder:
        python = others.install(Path(folder) / "venv", say)
        for case in (plan.days(), plan.years()):
            show_tools(settings, replace(case, capital=9 * CAPITAL), plan, Path(folder), python)
    tell(others.WHAT_THEY_ARE)


def show_tools(settings: Settings, case: Case, plan: Plan, folder: Path, python: Path | None) -> None:
    trials = len(case.pairs)
    found: dict[str, list[float]] = {}
    first: dict[str, float] = {}
    job = others.write_job(folder, config_of(case), case.pairs)
    for number in range(max(1, plan.rounds // 2)):
        swept = sweep(settings, replace(case, capital=case.capital + number))
        found.setdefault("ntrader sweep", []).append(trials / swept.spent.seconds)
        mine = {} if number else finals(settings, swept)
        for tool, answer in others.run_all(job, python, say):
            found.setdefault(tool, []).append(trials / answer["seconds"])
            first.setdefault(tool, answer["first"])
            if mine:
                same = sum(
                    abs(mine[pair] - final) < 0.01 for pair, final in zip(case.pairs, answer["finals"], strict=True)
                )
                say(f"  {tool}: {same:,} of {trials:,} final equities as ours")
    tell(f"  {case}")
    for tool, rates in found.items():
        note = f"; the first time in a process {trials / first[tool]:,.0f}" if tool in first else ""
        tell(f"    {tool:<16}{statistics.median(rates):10,.1f}{note}")


def finals(settings: Settings, swept: Swept) -> dict[floor.Pair, float]:
    return {
        (trial.point.values["fast_period"], trial.point.values["slow_period"]): trial.metrics["final_balance"]
        for trial in all_trials(settings, swept.sweep_id)
    }


if __name__ == "__main__":
    main()
