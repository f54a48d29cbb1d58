"""A sweep: open-sweep, run-trials in chunks until none is left, and the best trial once more by itself."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner

from flows.ready import ready
from flows.verify import Checked, check
from ntrader import progress
from ntrader.config import RunRequest
from ntrader.errors import EngineKilledError, NtraderError
from ntrader.forms import Workers
from ntrader.settings import Settings
from ntrader.sweeps import standing
from ntrader.sweeps.request import AS_IT_STANDS, SearchRequest
from ntrader.sweeps.runner import Where, choose_runner
from ntrader.sweeps.standing import Estimate, Standing
from ntrader.sweeps.tpe import TpeSampler
from storage import sweeps as stored
from storage import trials
from storage.patience import patiently
from storage.runs import get_run
from storage.sweeps import StoredSweep, StoredTrial
from storage.trials import Portion
from tasks.label import flow_run_id, label_flow_run
from tasks.open_sweep import Opening, join_sweep, open_sweep, plan, read, reopen_sweep
from tasks.publish_sweep import Publisher
from tasks.run_trials import LocalRunner, Runner, default_workers, make_runner
from tasks.sitting import WAITING, ChunkReport, Share, told_from_afar

# A chunk: long enough that a task run costs nothing beside it, short enough to lose little; longer and longer, so that
# a large sweep stays within what Prefect's server and its pages can bear.
CHUNK_SECONDS: Final = 5.0
LONGEST_CHUNK: Final = 60.0
_CHUNKS_OF_A_LENGTH: Final = 200
# Of what is left a worker takes its share divided by this: fewer chunks where it is small, a more even end where it is
# large.
_SHARES: Final = 1.5
# The last chunks of a sweep are no shorter than this.
_LEAST_SECONDS: Final = 0.4
_POLL_SECONDS: Final = 0.25
# What others hold is looked at so often.
_PATIENCE_SECONDS: Final = 1.0
# Workers that die before they have begun a trial.
_MOST_STILLBORN: Final = 5
# So often a chunk is halved where processes are killed.
_MOST_CAUTION: Final = 6


@dataclass(frozen=True, slots=True)
class SweepOutcome:
    """A sweep after a sitting: the row, the best trial, and what became of running it once more (None where it was
    not)."""

    sweep: StoredSweep
    resumed: bool
    estimate: Estimate
    best: StoredTrial | None
    checked: Checked | None
    memory: int


@flow(name="sweep", validate_parameters=True)
def sweep(
    request: RunRequest,
    search: SearchRequest = AS_IT_STANDS,
    workers: Workers = None,
    rerun: bool = False,
    keep_data: bool = True,
    verify_best: bool = True,
    runner: Where = None,
) -> SweepOutcome:
    """Run every trial of a sweep that has not been run yet, and record each as a run.

    Args:
        request: The base run: a sweep's file, single settings, or both.
        search: What to vary and how; laid over the section `sweep` of a file, where there is one.
        workers: Worker processes; by default one a core, or one a thread of a Dask cluster. Of each shard.
        rerun: Whether to run trials anew that have succeeded before, as another sweep; one that was left unfinished
            goes on.
        keep_data: Whether to keep the bars, so that runs can be had again when they have been revised.
        verify_best: Whether to run the best trial once more by itself at the end.
        runner: Where to run them: here, on a Dask cluster, or in shards on a work pool; by default what is set there.
    """
    settings = ready()
    config = read(settings, request, search.overrides())

    def opened(crew: Runner) -> Opening:
        return open_sweep(
            settings, config, crew.processes, config_path=request.config_path, rerun=rerun, keep_data=keep_data,
            flow_run_id=flow_run_id(), get_ready=crew.get_ready,
        )  # fmt: skip

    return _sweep(settings, opened, make_runner(settings, runner or choose_runner(settings), workers), verify_best)


@flow(name="resume-sweep", validate_parameters=True)
def resume_sweep(
    sweep: str,
    workers: Workers = None,
    keep_data: bool = True,
    verify_best: bool = True,
    runner: Where = None,
) -> SweepOutcome:
    """Run the trials of a recorded sweep that have not been run yet.

    Args:
        sweep: Its number, its name, @last or @last~1.
        workers: Worker processes; by default one a core, or one a thread of a Dask cluster. Of each shard.
        keep_data: Whether to keep the bars, so that runs can be had again when they have been revised.
        verify_best: Whether to run the best trial once more by itself at the end.
        runner: Where to run them: here, on a Dask cluster, or in shards on a work pool; by default what is set there.
    """
    settings = ready()
    found = stored.get_sweep(settings, sweep)

    def opened(crew: Runner) -> Opening:
        return reopen_sweep(
            settings, found, crew.processes, keep_data=keep_data, flow_run_id=flow_run_id(), get_ready=crew.get_ready
        )

    return _sweep(settings, opened, make_runner(settings, runner or choose_runner(settings), workers), verify_best)


@flow(name="sweep-shard", validate_parameters=True)
def sweep_shard(
    sweep: str,
    workers: Workers = None,
    keep_data: bool = True,
    seconds: float | None = None,
    expected: dict[str, str] | None = None,
) -> None:
    """Take part in a recorded sweep until nothing is left of it. Whoever started the sweep finishes it.

    Args:
        sweep: Its number, its name, @last or @last~1.
        workers: Worker processes; by default one a core.
        keep_data: Whether to keep the bars, so that runs can be had again when they have been revised.
        seconds: Begin no further trial after so long.
        expected: What must be found here, from whoever started the shard: the sweep's time and fingerprints.
    """
    with told_from_afar():
        settings = ready()
        with ended(LocalRunner(settings, workers or default_workers())) as crew:
            opening = join_sweep(
                settings, sweep, crew.processes, keep_data=keep_data, expected=expected, flow_run_id=flow_run_id()
            )
            label_flow_run(f"Shard of sweep {opening.sweep_id}", [f"sweep:{opening.sweep_id}"])
            _Sitting(settings, opening, crew, seconds, keeps_time=False).work()


@cache
def with_workers(chosen: Any, workers: int | None) -> Any:
    """The flow with a thread for each worker process."""
    return chosen.with_options(task_runner=ThreadPoolTaskRunner(max_workers=workers or default_workers()))


@contextmanager
def ended[R: Runner](runner: R) -> Iterator[R]:
    try:
        yield runner
    finally:
        runner.stop()


def _sweep(settings: Settings, opened: Callable[[Runner], Opening], runner: Runner, verify_best: bool) -> SweepOutcome:
    with ended(runner) as crew:
        opening = opened(crew)
        sitting = _work(settings, opening, crew)
    return _finish(settings, opening, sitting, verify_best=verify_best)


def _work(settings: Settings, opening: Opening, crew: Runner) -> _Sitting:
    """Until no trial is left, or no time."""
    found = stored.get_sweep(settings, str(opening.sweep_id))
    what = f"{found.strategy_name} {found.name or ''}".strip()
    label_flow_run(
        f"Sweep {found.id}: {what}, {found.trials:,} trials", [f"sweep:{found.id}", f"strategy:{found.strategy_name}"]
    )
    standing.tell_estimate(found.id, opening.estimate)
    sitting = _Sitting(settings, opening, crew)
    sitting.work()
    return sitting


def _finish(settings: Settings, opening: Opening, sitting: _Sitting, *, verify_best: bool) -> SweepOutcome:
    found = patiently(lambda: stored.get_sweep(settings, str(opening.sweep_id)))
    best = next(iter(_ranking(settings, found, 1)), None)
    patiently(lambda: stored.finish_sweep(settings, found.id, best.trial_number if best else None))
    # A run that was there before has been verified by whoever ran it: the same sweep again runs nothing at all.
    checked = _verified(settings, found.id, best) if verify_best and best and not best.linked else None
    done = patiently(lambda: stored.get_sweep(settings, str(found.id)))
    holds = checked.holds if checked and checked.verdict else None
    sitting.publisher.finish(settings, done, holds=holds)
    return SweepOutcome(done, opening.resumed, opening.estimate, best, checked, sitting.memory)


def _ranking(settings: Settings, found: StoredSweep, limit: int) -> list[StoredTrial]:
    return patiently(lambda: stored.ranking(settings, found.id, found.objective, found.direction, limit))


def _verified(settings: Settings, sweep_id: int, best: StoredTrial) -> Checked | None:
    """By itself, in a process that has run no trial."""
    if best.run_id is None:
        return None
    progress.report("Verifying the best trial")
    checked = check(settings, patiently(lambda: get_run(settings, str(best.run_id))))
    if checked.verdict is not None:
        identical = checked.holds
        patiently(lambda: stored.mark_verified(settings, sweep_id, best.trial_number, identical=identical))
    return checked


class _Sitting:
    """The work on one sweep by this process: what is handed out, and what came back."""

    def __init__(
        self,
        settings: Settings,
        opening: Opening,
        crew: Runner,
        seconds: float | None = None,
        *,
        keeps_time: bool = True,
    ) -> None:
        """`seconds` is how long it may take and `keeps_time` False where somebody else keeps the sweep's time."""
        self._settings = settings
        self._opening = opening
        self._sweep = opening.sitting.sweep
        self._began = self._recorded = time.monotonic()
        self._keeps_time = keeps_time
        self._wall = self._sweep.budget.wall if seconds is None else seconds
        self._crew = crew
        self.memory = 0
        counts = stored.count_trials(settings, opening.sweep_id)
        self._total = opening.estimate.trials
        self._done, self._linked, self._failed = counts.done, counts.linked, counts.failed
        self._done_here = 0
        self._best = self._first_best()
        self._per_trial = opening.estimate.seconds_per_trial
        self._chunks = 0
        self._out = 0
        self._stillborn = 0
        self._caution = 0
        self._waiting_for_database = False
        self.publisher = Publisher(opening.sweep_id)
        # Last, for its processes start at once.
        crew.begin(opening, self._hear)

    def work(self) -> None:
        """Until no trial is left, or no time."""
        try:
            while self._round():
                pass
        finally:
            self.publisher.stop()
            self._record_time()

    def _round(self) -> bool:
        """Hand out what is free and wait until all of it has come back. False where nothing is left to do."""
        sweep_id = self._opening.sweep_id
        counts = self._patiently(lambda: stored.count_trials(self._settings, sweep_id))
        self._done, self._linked, self._failed = counts.done, counts.linked, counts.failed
        self._tell()
        if not (counts.waiting or counts.running):
            # Also at the end of its time: what is left to do is to be seen.
            return self._sweep.sampler == "tpe" and self._ask() and not self._out_of_time()
        if self._out_of_time():
            return False
        if counts.waiting:
            self._hand_out()
        # Somebody else's: they finish, give back what they have, or end without a word.
        elif not self._patiently(lambda: trials.reclaim(self._settings, sweep_id)):
            time.sleep(_PATIENCE_SECONDS)
        return True

    def _hand_out(self) -> None:
        """Keep every worker busy until one finds nothing to take; then let the others finish."""
        more = True
        while True:
            while more and self._out < self._crew.width and not self._out_of_time():
                self._submit()
            if not self._out:
                return
            report = self._crew.next(_POLL_SECONDS)
            self._tell()
            if report is not None:
                self._out -= report.over
                more = self._count(report) and more

    def _submit(self) -> None:
        self._crew.submit(self._share())
        self._out += 1

    def _share(self) -> Share:
        seconds = min(LONGEST_CHUNK, CHUNK_SECONDS * 2 ** (self._chunks // _CHUNKS_OF_A_LENGTH), self._time_left())
        seconds /= 2**self._caution
        self._chunks += 1
        if not self._per_trial:
            return Share(Portion(self._crew.width, self._crew.width), seconds)
        limit = max(1, math.ceil(seconds / self._per_trial))
        least = max(1, math.ceil(_LEAST_SECONDS / self._per_trial))
        return Share(Portion(limit, math.ceil(_SHARES * self._crew.width), min(least, limit)), seconds)

    def _count(self, report: ChunkReport) -> bool:
        """Whether it is worth asking for more."""
        self.memory = max(self.memory, report.memory)
        self._require_life(report)
        self._done += report.saved
        self._done_here += report.saved
        self._failed += report.failed
        if report.saved and report.busy:
            per_trial = report.busy / report.saved
            self._per_trial = per_trial if self._per_trial is None else (self._per_trial + per_trial) / 2
        if report.best is not None and self._is_better(report.best[0]):
            self._best = report.best
        self.publisher.report(self._standing())
        self._record_time()
        return report.crashed or report.saved > 0

    def _record_time(self) -> None:
        """As it goes: whoever looks meanwhile sees it, and a kill loses little of it."""
        if not self._keeps_time:
            return
        now = time.monotonic()
        with suppress(NtraderError):
            stored.add_seconds(self._settings, self._opening.sweep_id, now - self._recorded)
            self._recorded = now

    def _require_life(self, report: ChunkReport) -> None:
        """Where processes are killed chunks have to be short, for all of one is lost. Raises EngineKilledError where
        they are killed before they have come to a trial, again and again."""
        self._caution = min(self._caution + 1, _MOST_CAUTION) if report.crashed else max(self._caution - 1, 0)
        self._stillborn = self._stillborn + 1 if report.stillborn else 0
        if self._stillborn >= _MOST_STILLBORN:
            raise EngineKilledError(
                f"the worker processes die, {self._stillborn} one after another",
                hint="Is there memory for so many? Try --workers 1.",
            )

    def _ask(self) -> bool:
        """The next batch of a sampler that learns. False where it has asked for all."""
        progress.report("Asking for the next trials")
        sweep_id = self._opening.sweep_id
        known = self._patiently(lambda: stored.objectives(self._settings, sweep_id, self._sweep.objective))
        if any(state in ("waiting", "running") for _, state, _ in known.values()):
            return True  # somebody else has asked meanwhile: without their results nothing may follow
        sampler = TpeSampler(self._sweep, [point for point, _, _ in known.values()])
        sampler.tell({number: value for number, (_, _, value) in known.items()})
        batch = sampler.ask()
        if not batch:
            return False
        planned = plan(self._settings, self._opening.sitting, batch)
        self._patiently(lambda: stored.add_trials(self._settings, sweep_id, planned, link=self._opening.link))
        return True

    def _time_left(self) -> float:
        return math.inf if self._wall is None else self._wall - (time.monotonic() - self._began)

    def _out_of_time(self) -> bool:
        return self._time_left() <= 0

    def _first_best(self) -> tuple[float, int] | None:
        ranked = stored.ranking(self._settings, self._opening.sweep_id, self._sweep.objective, self._sweep.direction, 1)
        return (ranked[0].metrics[self._sweep.objective], ranked[0].trial_number) if ranked else None

    def _is_better(self, value: float) -> bool:
        if self._best is None:
            return True
        return value > self._best[0] if self._sweep.direction == "maximize" else value < self._best[0]

    def _patiently[T](self, action: Callable[[], T]) -> T:
        """And whoever looks is told what is waited for."""

        def wait() -> None:
            self._waiting_for_database = True
            self._tell()

        found = patiently(action, wait)
        self._waiting_for_database = False
        return found

    def _hear(self, number: int, done: int) -> None:
        """From the threads of the chunks."""
        self._waiting_for_database = number == WAITING

    def _tell(self) -> None:
        standing.tell(self._standing())

    def _standing(self) -> Standing:
        seconds = time.monotonic() - self._began
        rate = self._done_here / seconds if self._done_here and seconds > 0 else None
        eta = (self._total - self._done) / rate if rate else None
        value, number = self._best or (None, None)
        return Standing(
            self._total, self._done, self._linked, self._failed, rate, eta, value, number, self._waiting_for_database
        )
