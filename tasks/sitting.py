"""What a chunk of trials needs to know and what it answers, for those who hand them out: values, without the engine."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from ntrader.errors import ConfigError, NotFoundError, NtraderError
from ntrader.settings import Settings
from ntrader.sweeps.config import SweepConfig
from storage.sweeps import get_sweep
from storage.trials import Portion

# What a worker is at, where a trial's number would be.
LOADING: Final = -1
SAVING: Final = -2
WAITING: Final = -3
PREPARING: Final = -4
PROVING: Final = -5

# What every process that takes part in a sweep has in common.
VERSIONS: Final = ("code", "engine", "environment")

# Sent by whoever watches: finish the trial at hand, save, and come back.
COME_BACK: Final = signal.SIGUSR1

Tell = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Sitting:
    """One opening of a sweep, and what its chunks have in common. `code`, `engine` and `environment` are the
    fingerprints with which the trials were planned."""

    session: str
    sweep_id: int
    sweep: SweepConfig
    strategy_name: str
    strategy_type: str
    code: str
    engine: str
    environment: str
    config_path: str | None = None
    flow_run_id: UUID | None = None
    keep_data: bool = True


@dataclass(frozen=True, slots=True)
class Share:
    """How much a chunk may take: a portion of the trials, and no further one after so many seconds."""

    portion: Portion
    seconds: float


@dataclass(frozen=True, slots=True)
class ChunkReport:
    """What became of a chunk. `busy` are the seconds that its trials took, `best` the best of the objective and its
    trial, `memory` the largest size of the process in bytes. `crashed` says that the process died, `stillborn` that no
    trial can be blamed for that; what is not `over` is news of one that goes on."""

    saved: int = 0
    failed: int = 0
    busy: float = 0.0
    best: tuple[float, int] | None = None
    memory: int = 0
    crashed: bool = False
    over: bool = True
    stillborn: bool = False


@contextmanager
def told_from_afar() -> Iterator[None]:
    """Errors of ours say on which machine, and all they have to say in their message: it may be all that arrives."""
    try:
        yield
    except NtraderError as error:
        hint = f"\n{error.hint}" if error.hint else ""
        error.message, error.hint = f"on {socket.gethostname()}: {error.message}{hint}", None
        error.args = (error.message,)
        raise


def require_same_sweep(settings: Settings, sweep_id: int, created_at: datetime) -> None:
    """Raises ConfigError where the database seen from here is another than the flow's."""
    try:
        found = get_sweep(settings, str(sweep_id))
    except NotFoundError:
        found = None
    if found is None or found.created_at != created_at:
        raise ConfigError(
            f"sweep {sweep_id} is not in the database {settings.masked_database_url}",
            hint="Give every machine the same DATABASE_URL, of a PostgreSQL that all of them reach.",
        )


def require_same_versions(sweep_id: int, here: Mapping[str, str], planned_with: Mapping[str, str]) -> None:
    """Raises ConfigError naming which of code, engine and environment differ."""
    moved = [name for name in VERSIONS if here[name] != planned_with[name]]
    if moved:
        raise ConfigError(
            f"the {' and '.join(moved)} of this worker {'differs' if len(moved) == 1 else 'differ'} from what sweep"
            f" {sweep_id} was planned with",
            hint=f"Install the same versions on every machine, or `ntrader sweep resume {sweep_id}`.",
        )
