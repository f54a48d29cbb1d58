"""Sweeps: writing one down with its trials, finding it again, and how far it is. Values in, frozen values out."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from ntrader.errors import ConfigError
from ntrader.settings import Settings
from storage.database import reading, writing
from storage.fields import METRICS, column_name
from storage.leases import is_dead
from storage.references import find_sweep_id

if TYPE_CHECKING:
    from ntrader.sweeps.outcomes import Outcome
    from ntrader.sweeps.points import Planned, Point

Connection = psycopg.Connection[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class NewSweep:
    """A sweep that is to be written down; `trials` is how many there will be, at most. With `rerun` every one of them
    is run, whatever there was before."""

    fingerprint: str
    strategy_name: str
    config_snapshot: dict[str, Any]
    objective: str
    direction: str
    sampler: str
    trials: int
    rerun: bool = False
    name: str | None = None
    config_path: str | None = None
    sampler_version: str | None = None
    flow_run_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Counts:
    """How many trials are in which state; of the successful ones `linked` are runs that there were before. `working`
    says whether somebody holds a lease that has not run out, and is not known to be dead."""

    waiting: int = 0
    running: int = 0
    success: int = 0
    failed: int = 0
    linked: int = 0
    working: bool = False

    @property
    def done(self) -> int:
        return self.success + self.failed


@dataclass(frozen=True, slots=True)
class StoredSweep:
    """A row of `sweeps`, and its trials counted. `seconds` is the time that was spent on it, in all sittings;
    `best_linked` says that the best trial is a run that there was before."""

    id: int
    name: str | None
    fingerprint: str
    strategy_name: str
    config_path: str | None
    config_snapshot: dict[str, Any]
    objective: str
    direction: str
    sampler: str
    sampler_version: str | None
    trials: int
    rerun: bool
    flow_run_id: UUID | None
    best_trial: int | None
    best_linked: bool | None
    verified: bool | None
    seconds: float
    created_at: datetime
    finished_at: datetime | None
    counts: Counts

    @property
    def state(self) -> str:
        """running, finished, out of time (a budget of time was used up), waiting (no trial of its own has been run yet)
        or interrupted."""
        if self.counts.working:
            return "running"
        if self.finished_at is not None:
            return "out of time" if self.counts.waiting or self.counts.running else "finished"
        begun = self.counts.done > self.counts.linked or self.counts.running
        return "interrupted" if begun else "waiting"


@dataclass(frozen=True, slots=True)
class StoredTrial:
    """A trial and the run that it became; `run_id` is None where there is none, or where it has been deleted."""

    trial_number: int
    state: str
    reason: str | None
    linked: bool
    crashes: int
    point: Point
    run_id: UUID | None
    instrument_symbol: str | None
    start_date: datetime | None
    end_date: datetime | None
    parameters: dict[str, Any] | None
    error_message: str | None
    execution_duration_seconds: float | None
    result_digest: str | None
    metrics: dict[str, Any]


RANKABLE = (*METRICS, "execution_duration_seconds")
_SWEEP = [field.name for field in fields(StoredSweep) if field.name not in ("counts", "best_linked")]
_OF_RUN = ("run_id", "instrument_symbol", "start_date", "end_date", "parameters", "error_message",
           "execution_duration_seconds", "result_digest")  # fmt: skip
_SELECT = sql.SQL(
    "SELECT {}, (SELECT linked FROM trials WHERE sweep_id = sweeps.id AND trial_number = best_trial) AS best_linked"
    " FROM sweeps"
).format(sql.SQL(", ").join(map(sql.Identifier, _SWEEP)))
_TRIAL = sql.SQL("SELECT t.trial_number, t.state, t.reason, t.linked, t.crashes, t.point, {} FROM trials t").format(
    sql.SQL(", ").join(sql.Identifier("r", name) for name in (*_OF_RUN, *METRICS))
) + sql.SQL(" LEFT JOIN backtest_runs r ON r.id = t.run_id")


def create_sweep(settings: Settings, new: NewSweep, plans: Iterable[Sequence[Planned]]) -> int:
    """Write down a sweep with the trials of all `plans`, or nothing. A trial whose run key has succeeded is that run,
    unless it is a rerun. Returns its id."""
    values = {field.name: getattr(new, field.name) for field in fields(NewSweep)}
    values["config_snapshot"] = Jsonb(new.config_snapshot)
    statement = sql.SQL("INSERT INTO sweeps ({}) VALUES ({}) RETURNING id").format(
        sql.SQL(", ").join(map(sql.Identifier, values)), sql.SQL(", ").join(map(sql.Placeholder, values))
    )
    with writing(settings) as connection:
        row = connection.execute(statement, values).fetchone()
        assert row is not None
        sweep_id: int = row["id"]
        for plan in plans:
            _add(connection, sweep_id, plan, link=not new.rerun)
    return sweep_id


def add_trials(settings: Settings, sweep_id: int, plan: Sequence[Planned], *, link: bool) -> int:
    """The next batch of a sampler that learns, whole. Nothing where another process has added one meanwhile: it follows
    from results that this batch did not know. Returns how many were added."""
    with writing(settings) as connection:
        connection.execute("SELECT FROM sweeps WHERE id = %s FOR UPDATE", [sweep_id])
        row = connection.execute("SELECT count(*) AS n FROM trials WHERE sweep_id = %s", [sweep_id]).fetchone()
        if not plan or not row or plan[0].point.number != row["n"]:
            return 0
        _add(connection, sweep_id, plan, link=link)
    return len(plan)


def plan_again(settings: Settings, sweep_id: int, plan: Sequence[Planned], *, link: bool) -> None:
    """Trials that wait, with the run keys that they have now: code or data may have changed since they were planned."""
    with writing(settings) as connection:
        found = _known_runs(connection, plan) if link else {}
        connection.cursor().executemany(
            "UPDATE trials SET run_key = %s, run_id = %s, linked = %s, state = %s"
            " WHERE sweep_id = %s AND trial_number = %s AND state = 'waiting'",
            [(*_values(planned, found), sweep_id, planned.point.number) for planned in plan],
        )


def waiting_points(settings: Settings, sweep_id: int, after: int, limit: int) -> list[Point]:
    """Of trials that wait, those behind the number `after`, in order."""
    with reading(settings) as connection:
        rows = connection.execute(
            "SELECT point FROM trials WHERE sweep_id = %s AND state = 'waiting' AND trial_number > %s"
            " ORDER BY trial_number LIMIT %s",
            [sweep_id, after, limit],
        ).fetchall()
    return [_point(row["point"]) for row in rows]


def find_unfinished(settings: Settings, fingerprint: str, *, rerun: bool = False) -> StoredSweep | None:
    """The newest sweep with this fingerprint, if it still has trials to run; of those that are a rerun, or are not."""
    with reading(settings) as connection:
        row = connection.execute(
            sql.SQL("{} WHERE fingerprint = %s AND rerun = %s ORDER BY id DESC LIMIT 1").format(_SELECT),
            [fingerprint, rerun],
        ).fetchone()
        found = _stored(connection, row) if row else None
    return found if found and found.state != "finished" else None


def get_sweep(settings: Settings, reference: str) -> StoredSweep:
    """By its number, @last, @last~1, or name. Raises NotFoundError, or AmbiguousError listing the candidates."""
    with reading(settings) as connection:
        return read_sweep(connection, reference)


def read_sweep(connection: Connection, reference: str) -> StoredSweep:
    """`get_sweep` on a connection one has."""
    return _stored(connection, _find(connection, reference))


def list_sweeps(settings: Settings, limit: int | None = None, *, unfinished: bool = False) -> list[StoredSweep]:
    """The newest first; with `unfinished` those alone that are neither finished nor out of time."""
    with reading(settings) as connection:
        return read_sweeps(connection, limit, unfinished=unfinished)


def read_sweeps(connection: Connection, limit: int | None, *, unfinished: bool = False) -> list[StoredSweep]:
    """`list_sweeps` on a connection one has."""
    which = sql.SQL("{} {} ORDER BY id DESC LIMIT %s").format(
        _SELECT, sql.SQL("WHERE finished_at IS NULL" if unfinished else "")
    )
    return [_stored(connection, row) for row in connection.execute(which, [limit]).fetchall()]


def count_trials(settings: Settings, sweep_id: int) -> Counts:
    with reading(settings) as connection:
        return _counts(connection, sweep_id)


def ranking(
    settings: Settings, sweep_id: int, metric: str, direction: str, limit: int | None = None
) -> list[StoredTrial]:
    """Successful trials whose `metric` is defined, the best first; equal ones by their numbers. Raises ConfigError for
    an unknown metric."""
    column = ranking_column(metric)
    order = sql.SQL(
        "{} WHERE t.sweep_id = %s AND t.state = 'success' AND r.{} IS NOT NULL"
        " ORDER BY r.{} {}, t.trial_number LIMIT %s"
    ).format(
        _TRIAL, sql.Identifier(column), sql.Identifier(column), sql.SQL("DESC" if direction == "maximize" else "ASC")
    )
    return _trials(settings, order, [sweep_id, limit])


def ranking_column(metric: str) -> str:
    """The column that trials are ranked by. Raises ConfigError for what is no metric, with the nearest."""
    column = column_name(metric)
    if column not in RANKABLE:
        near = difflib.get_close_matches(column, RANKABLE, n=1, cutoff=0.5)
        hint = f"Did you mean {near[0]}?" if near else f"Known: {', '.join(RANKABLE)}."
        raise ConfigError(f"trials cannot be ranked by {metric!r}", hint=hint)
    return column


def all_trials(settings: Settings, sweep_id: int) -> list[StoredTrial]:
    """In the order of their numbers."""
    return _trials(settings, sql.SQL("{} WHERE t.sweep_id = %s ORDER BY t.trial_number").format(_TRIAL), [sweep_id])


def failed_trials(settings: Settings, sweep_id: int, limit: int | None = None) -> list[StoredTrial]:
    statement = "{} WHERE t.sweep_id = %s AND t.state = 'failed' ORDER BY t.trial_number LIMIT %s"
    return _trials(settings, sql.SQL(statement).format(_TRIAL), [sweep_id, limit])


def objectives(settings: Settings, sweep_id: int, metric: str) -> dict[int, tuple[Point, str, float | None]]:
    """Point, state and metric of every trial there is so far, by its number and in the order of these."""
    statement = sql.SQL(
        "SELECT t.trial_number, t.point, t.state, r.{} AS value FROM trials t"
        " LEFT JOIN backtest_runs r ON r.id = t.run_id WHERE t.sweep_id = %s ORDER BY t.trial_number"
    ).format(sql.Identifier(metric))
    with reading(settings) as connection:
        rows = connection.execute(statement, [sweep_id]).fetchall()
    return {row["trial_number"]: (_point(row["point"]), row["state"], row["value"]) for row in rows}


def outcomes(settings: Settings, sweep_id: int, metric: str) -> list[Outcome]:
    """Of every trial there is so far, in the order of their numbers: a third of the memory of `all_trials`."""
    from ntrader.sweeps.outcomes import Outcome

    statement = sql.SQL(
        "SELECT t.point, t.state, t.reason, r.{} AS value, r.return_observations AS observations FROM trials t"
        " LEFT JOIN backtest_runs r ON r.id = t.run_id WHERE t.sweep_id = %s ORDER BY t.trial_number"
    ).format(sql.Identifier(metric))
    with reading(settings) as connection:
        rows = connection.execute(statement, [sweep_id])
        return [Outcome(**{**row, "point": _point(row["point"])}) for row in rows]


# So many trials at most are looked at to tell how long one takes: there may be millions.
_LOOKED_BACK: Final = 1_000


def recorded_seconds(settings: Settings, strategy_path: str, symbol: str, bars: int) -> float | None:
    """What a trial of the strategy over about so many bars of the symbol took, by the latest that were run."""
    with reading(settings) as connection:
        row = connection.execute(
            "SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY execution_duration_seconds) AS seconds, count(*) AS n"
            " FROM (SELECT execution_duration_seconds FROM"
            " (SELECT id, created_at, execution_duration_seconds FROM backtest_runs WHERE NOT archived"
            " AND instrument_symbol = %s AND strategy_path = %s AND trial_number IS NOT NULL"
            " AND execution_status = 'success' ORDER BY created_at DESC NULLS LAST, id DESC LIMIT %s) latest"
            " JOIN equity_curves ON backtest_run_id = latest.id WHERE points BETWEEN %s AND %s"
            " ORDER BY created_at DESC NULLS LAST, latest.id DESC LIMIT 50) alike",
            [symbol, strategy_path, _LOOKED_BACK, int(bars * 0.8), int(bars * 1.25) + 1],
        ).fetchone()
    return row["seconds"] if row and row["n"] >= 10 else None


def begin_sitting(settings: Settings, sweep_id: int, flow_run_id: UUID | None) -> None:
    """Somebody works on it (again)."""
    with writing(settings) as connection:
        connection.execute(
            "UPDATE sweeps SET finished_at = NULL, flow_run_id = coalesce(%s, flow_run_id) WHERE id = %s",
            [flow_run_id, sweep_id],
        )


def add_seconds(settings: Settings, sweep_id: int, seconds: float) -> None:
    with writing(settings) as connection:
        connection.execute("UPDATE sweeps SET seconds = seconds + %s WHERE id = %s", [seconds, sweep_id])


def finish_sweep(settings: Settings, sweep_id: int, best_trial: int | None) -> None:
    """No trial is left to run, or no time. The first one to say so is remembered."""
    with writing(settings) as connection:
        connection.execute(
            "UPDATE sweeps SET finished_at = coalesce(finished_at, now()), best_trial = %(best)s,"
            # Of another trial nobody has said anything yet.
            " verified = CASE WHEN best_trial = %(best)s THEN verified END WHERE id = %(sweep)s",
            {"best": best_trial, "sweep": sweep_id},
        )


def mark_verified(settings: Settings, sweep_id: int, trial_number: int, *, identical: bool) -> None:
    """What came of running the best trial by itself."""
    with writing(settings) as connection:
        connection.execute(
            "UPDATE sweeps SET verified = %s WHERE id = %s AND best_trial = %s", [identical, sweep_id, trial_number]
        )


def retry_failed(settings: Settings, sweep_id: int) -> int:
    """Failed trials wait again; their failed runs stay. How many."""
    with writing(settings) as connection:
        found = connection.execute(
            "UPDATE trials SET state = 'waiting', reason = NULL, crashes = 0, run_id = NULL"
            " WHERE sweep_id = %s AND state = 'failed'",
            [sweep_id],
        )
        if found.rowcount:
            connection.execute(
                "UPDATE sweeps SET finished_at = NULL, best_trial = NULL, verified = NULL WHERE id = %s", [sweep_id]
            )
    return found.rowcount


def _add(connection: Connection, sweep_id: int, plan: Sequence[Planned], *, link: bool) -> None:
    found = _known_runs(connection, plan) if link else {}
    with connection.cursor().copy(
        "COPY trials (sweep_id, trial_number, point, run_key, run_id, linked, state) FROM STDIN"
    ) as copy:
        for planned in plan:
            copy.write_row((sweep_id, planned.point.number, Jsonb(planned.point.snapshot()), *_values(planned, found)))


def _values(planned: Planned, found: dict[str, int]) -> tuple[str, int | None, bool, str]:
    """Run key, row of the run, linked, state."""
    row_id = found.get(planned.run_key)
    return planned.run_key, row_id, row_id is not None, "waiting" if row_id is None else "success"


def count_known(settings: Settings, run_keys: Sequence[str]) -> int:
    """How many of these run keys have succeeded."""
    with reading(settings) as connection:
        row = connection.execute(
            "SELECT count(DISTINCT run_key) AS n FROM backtest_runs"
            " WHERE run_key = ANY(%s) AND execution_status = 'success'",
            [list(run_keys)],
        ).fetchone()
    return row["n"] if row else 0


def _known_runs(connection: Connection, plan: Sequence[Planned]) -> dict[str, int]:
    """The newest success of each run key that has one."""
    rows = connection.execute(
        "SELECT run_key, max(id) AS id FROM backtest_runs WHERE run_key = ANY(%s) AND execution_status = 'success'"
        " GROUP BY run_key",
        [[planned.run_key for planned in plan]],
    ).fetchall()
    return {row["run_key"]: row["id"] for row in rows}


def _trials(settings: Settings, statement: sql.Composed, parameters: list[Any]) -> list[StoredTrial]:
    with reading(settings) as connection:
        rows = connection.execute(statement, parameters).fetchall()
    return [_trial(row) for row in rows]


def _trial(row: dict[str, Any]) -> StoredTrial:
    metrics = {name: row.pop(name) for name in METRICS}
    return StoredTrial(**{**row, "point": _point(row["point"])}, metrics=metrics)


def _find(connection: Connection, reference: str) -> dict[str, Any]:
    number = find_sweep_id(connection, reference)
    (row,) = connection.execute(sql.SQL("{} WHERE id = %s").format(_SELECT), [number]).fetchall()
    return row


def _point(snapshot: dict[str, Any]) -> Point:
    # Lists of sweeps have no points to read, and are to be quick.
    from ntrader.sweeps.points import read_point

    return read_point(snapshot)


def _stored(connection: Connection, row: dict[str, Any]) -> StoredSweep:
    return StoredSweep(**row, counts=_counts(connection, row["id"]))


def _counts(connection: Connection, sweep_id: int) -> Counts:
    rows = connection.execute(
        "SELECT state, linked, count(*) AS n FROM trials WHERE sweep_id = %s GROUP BY state, linked", [sweep_id]
    ).fetchall()
    states = dict.fromkeys(("waiting", "running", "success", "failed"), 0)
    for row in rows:
        states[row["state"]] += row["n"]
    linked = sum(row["n"] for row in rows if row["linked"])
    return Counts(**states, linked=linked, working=bool(states["running"]) and _somebody_works(connection, sweep_id))


def _somebody_works(connection: Connection, sweep_id: int) -> bool:
    owners = connection.execute(
        "SELECT DISTINCT coalesce(lease_owner, '') AS owner FROM trials"
        " WHERE sweep_id = %s AND state = 'running' AND lease_expires_at > now()",
        [sweep_id],
    ).fetchall()
    return any(not is_dead(row["owner"]) for row in owners)
