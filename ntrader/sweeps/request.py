"""SearchRequest: what a person asks of a search, on the command line or in a form: any part of a file's `sweep`.

It only says what is meant; whether that can be searched says `ntrader.sweeps.config.build_sweep`, in words of its own.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, Field, ValidationError

from ntrader.config import FormModel, describe
from ntrader.errors import ConfigError
from ntrader.forms import COUNT, DATE, choice
from ntrader.sweeps.config import OBJECTIVES


def _length(written: object) -> object:
    """90 and "90" are both seconds."""
    return str(written) if isinstance(written, int | float) else written


Length = Annotated[str, BeforeValidator(_length)]


class PeriodRequest(FormModel):
    """A test period: a first and a last day, either of which may be blank, or a length up to the newest bar."""

    start: Annotated[Any, DATE] = Field(default=None, title="First day", description="Included")
    end: Annotated[Any, DATE] = Field(default=None, title="Last day", description="Included")
    last: str | None = Field(
        default=None, description="In place of both: 3y, 6mo, 26w or 90d up to the newest bar of the day it is run"
    )


class BudgetRequest(FormModel):
    """When the sweep has done enough. A sampler other than grid needs a number of trials."""

    trials: Annotated[int | None, COUNT] = Field(default=None, description="Run at most so many")
    wall: Length | None = Field(default=None, title="Time", description="Stop after so long, such as 30m or 2h")


class SearchRequest(FormModel):
    """What to vary and how to draw from it, laid over a file's section `sweep`. What is blank stays as it is there, or
    keeps its default."""

    params: dict[str, Any] = Field(
        default_factory=dict,
        title="Parameters to vary",
        description=(
            'Each with its values, such as {"fast_period": {"range": [5, 50, 5]}, "slow_period": [50, 100, 200]},'
            ' or {"threshold": {"uniform": [0.01, 0.1]}}'
        ),
    )
    constraints: list[str] = Field(
        default_factory=list, description="Each a condition that all trials fulfil, such as fast_period < slow_period"
    )
    symbols: list[str] = Field(default_factory=list, description="To vary the instrument too; blank: that of the run")
    objective: Annotated[str | None, choice(OBJECTIVES)] = Field(
        default=None, description="The metric to rank trials by; sharpe_ratio by default"
    )
    direction: Annotated[str | None, choice(("maximize", "minimize"))] = Field(
        default=None, description="Maximize by default; minimize where less of the objective is better"
    )
    sampler: Annotated[str | None, choice(("grid", "random", "tpe"))] = Field(
        default=None,
        description="All points in order (grid, the default), drawn evenly (random), or led by results (tpe)",
    )
    budget: BudgetRequest = Field(default_factory=BudgetRequest, description="When it has done enough")
    periods: list[PeriodRequest] = Field(
        default_factory=list, description="To vary the test period; blank: that of the run"
    )
    timeframes: list[str] = Field(default_factory=list, description="To vary the length of a bar: 1-DAY, 1-HOUR ...")
    name: str | None = Field(default=None, description="What to call the sweep")
    timeout: Length | None = Field(
        default=None, title="Time limit of a trial", description="Such as 30s or 5m; none by default"
    )
    seed: int | None = Field(default=None, description="Of the sampler; 0 by default")
    batch: Annotated[int | None, COUNT] = Field(
        default=None, description="Trials that a tpe sampler asks for at once; 8 by default"
    )

    def overrides(self) -> dict[str, Any]:
        """As plain data for `read_sweep`."""
        given: dict[str, Any] = self.model_dump(mode="json")
        return given


_SECTIONS: dict[str, type[BaseModel]] = {"": SearchRequest, "budget": BudgetRequest, "periods": PeriodRequest}

# The search that a file describes, and nothing else.
AS_IT_STANDS: Final = SearchRequest()


def read_search(values: dict[str, Any]) -> SearchRequest:
    """Raises ConfigError naming what does not fit."""
    try:
        return SearchRequest.model_validate(values)
    except ValidationError as error:
        lines = [f"sweep.{where}: {what}" for where, what in describe(error, _SECTIONS)]
        raise ConfigError("\n".join(lines)) from None
