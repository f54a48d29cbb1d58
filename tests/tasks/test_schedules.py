"""Schedules as Prefect's server keeps them."""

from __future__ import annotations

import pytest
from prefect import get_client
from prefect.client.schemas.actions import DeploymentUpdate

from flows.deploy import deploy_all
from flows.launch import prefect_at
from ntrader.errors import ConfigError
from tasks import schedules

pytestmark = pytest.mark.usefixtures("deployments")


@pytest.mark.parametrize("name", ["a/b", "50%", "<x>", "", " "])
def test_a_name_that_prefect_does_not_take_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="is no name for a schedule"):
        schedules.check_name(name)
    schedules.check_name("each night, at 2")


def test_one_that_was_added_takes_over_what_its_flow_is_run_with_now(prefect_server: str) -> None:
    with prefect_at(prefect_server), get_client(sync_client=True) as client:
        schedules.add(
            "dusty", "backtest", {"request": {}}, cron="0 0 1 1 *", timezone="UTC", description="", replace=False
        )
        before = client.read_deployment_by_name("backtest/dusty")
        old = {"env": {"OLD": "1"}}
        client.update_deployment(before.id, DeploymentUpdate(job_variables=old, entrypoint="flows.old.backtest"))

        deploy_all()

        base, after = (client.read_deployment_by_name(f"backtest/{name}") for name in ("backtest", "dusty"))
        schedules.remove("dusty")
    assert (after.job_variables, after.entrypoint) == (base.job_variables, base.entrypoint)
    assert base.job_variables != old
    assert (after.id, after.parameters, after.schedules) == (before.id, before.parameters, before.schedules)
