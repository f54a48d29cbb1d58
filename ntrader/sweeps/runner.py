"""Where the trials of a sweep run: worker processes here, a Dask cluster, or shards on a Prefect work pool. It never
changes what comes out of them."""

from __future__ import annotations

from typing import Annotated, Final, Literal, get_args

from pydantic import Field, ValidationError

from ntrader.config import FrozenModel
from ntrader.errors import ConfigError
from ntrader.forms import FORM, or_new
from ntrader.settings import Settings

Kind = Literal["local", "dask", "prefect"]

DEPLOYMENT: Final = "sweep-shard/sweep-shard"


class RunnerConfig(FrozenModel):
    """What runs the trials. A shard is a flow run of `deployment` and takes part in the sweep from whatever machine it
    comes to."""

    model_config = FORM

    kind: Kind = Field(default="local", description="Processes there, a Dask cluster, or shards on a Prefect work pool")
    scheduler: str | None = Field(default=None, description="Address of Dask's scheduler, like tcp://host:8786")
    shards: int | None = Field(default=None, ge=1, description="How many shards; by default one a worker of the pool")
    deployment: str = Field(default=DEPLOYMENT, description="What a shard is a run of, as FLOW/DEPLOYMENT")


Where = Annotated[
    RunnerConfig | None, or_new("As chosen here", RunnerConfig.model_json_schema(), "As set where it runs")
]


def choose_runner(
    settings: Settings, kind: str | None = None, *, scheduler: str | None = None, shards: int | None = None,
    deployment: str | None = None,
) -> RunnerConfig:  # fmt: skip
    """What is named, and for the rest the settings. A scheduler or shards say by themselves which kind is meant.

    Raises ConfigError where they do not go together.
    """
    chosen = kind or _implied(scheduler, shards, deployment) or settings.runner
    if chosen not in get_args(Kind):
        raise ConfigError(f"there is no runner {chosen!r}", hint=f"Choose one of {', '.join(get_args(Kind))}.")
    if chosen != "dask" and scheduler:
        raise ConfigError(f"a scheduler goes with the runner dask, not with {chosen}")
    if chosen != "prefect" and (shards is not None or deployment):
        raise ConfigError(f"shards and their deployment go with the runner prefect, not with {chosen}")
    address = scheduler or settings.dask_scheduler
    if chosen == "dask" and not address:
        raise ConfigError(
            "the runner dask needs the address of a scheduler",
            hint="Add --scheduler tcp://HOST:8786, or set NTRADER_DASK_SCHEDULER.",
        )
    try:
        return RunnerConfig.model_validate(
            {"kind": chosen, "scheduler": address if chosen == "dask" else None, "shards": shards}
            | ({"deployment": _full(deployment)} if deployment else {})
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"{first['loc'][0]}: {first['msg']}") from None


def _implied(scheduler: str | None, shards: int | None, deployment: str | None) -> Kind | None:
    if shards is not None or deployment:
        return "prefect"
    return "dask" if scheduler else None


def _full(deployment: str) -> str:
    """Prefect's name of it; the flow goes without saying."""
    return deployment if "/" in deployment else f"sweep-shard/{deployment}"
