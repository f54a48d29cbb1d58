"""Where trials run, from what is named and what is set."""

from __future__ import annotations

from pathlib import Path

import pytest

from ntrader.errors import ConfigError
from ntrader.settings import Settings
from ntrader.sweeps.runner import DEPLOYMENT, RunnerConfig, choose_runner

DASK = "tcp://somewhere:8786"


def settings(**values: str) -> Settings:
    return Settings(home=Path("/"), **values)  # type: ignore[arg-type]


def test_by_default_it_is_this_machine() -> None:
    assert choose_runner(settings()) == RunnerConfig()
    assert choose_runner(settings(dask_scheduler=DASK)) == RunnerConfig(kind="local")


def test_settings_choose_and_what_is_named_wins() -> None:
    here = settings(runner="dask", dask_scheduler=DASK)
    assert choose_runner(here) == RunnerConfig(kind="dask", scheduler=DASK)
    assert choose_runner(here, scheduler="tcp://other:1") == RunnerConfig(kind="dask", scheduler="tcp://other:1")
    assert choose_runner(here, "local") == RunnerConfig()
    assert choose_runner(here, shards=3) == RunnerConfig(kind="prefect", shards=3)


def test_a_scheduler_or_shards_say_which_is_meant() -> None:
    assert choose_runner(settings(), scheduler=DASK).kind == "dask"
    assert choose_runner(settings(), shards=2) == RunnerConfig(kind="prefect", shards=2, deployment=DEPLOYMENT)
    assert choose_runner(settings(), deployment="big").deployment == "sweep-shard/big"
    assert choose_runner(settings(), deployment="mine/big").deployment == "mine/big"


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"kind": "ray"}, "no runner 'ray'"),
        ({"kind": "dask"}, "needs the address of a scheduler"),
        ({"kind": "local", "scheduler": DASK}, "a scheduler goes with the runner dask, not with local"),
        ({"kind": "dask", "scheduler": DASK, "shards": 2}, "shards and their deployment go with the runner prefect"),
        ({"scheduler": DASK, "deployment": "big"}, "a scheduler goes with the runner dask, not with prefect"),
        ({"kind": "prefect", "shards": 0}, "shards: Input should be greater than or equal to 1"),
    ],
    ids=["unknown", "no scheduler", "scheduler here", "shards on dask", "both", "no shards"],
)
def test_what_does_not_go_together_is_refused(values: dict[str, object], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        choose_runner(settings(), **values)  # type: ignore[arg-type]


def test_a_setting_that_names_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="no runner 'spark'"):
        choose_runner(settings(runner="spark"))
