"""The compare flow on a real Prefect server: what it publishes is what was asked for."""

from __future__ import annotations

from uuid import UUID

import pytest
from prefect import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

from flows.compare import compare
from ntrader.comparison import Comparison
from ntrader.errors import ConfigError, NotFoundError
from ntrader.settings import Settings
from storage import recording
from tests import factories

pytestmark = pytest.mark.usefixtures("prefect_api")


def saved(settings: Settings, fast_period: int) -> str:
    config = factories.run_config(
        strategy={"path": "ntrader.strategies.sma_crossover:SMACrossover", "parameters": {"fast_period": fast_period}}
    )
    run = factories.new_run(config=config)
    recording.start_run(settings, run)
    done = factories.execution(result_digest=f"{fast_period:x}" * 64)
    recording.save_success(settings, run.run_id, done, factories.metrics_of(done))
    return str(run.run_id)


def test_a_comparison_is_an_artifact(environment: Settings) -> None:
    runs = [saved(environment, 5), saved(environment, 7)]

    comparison = compare(runs=[runs[0], "@last"], baseline=runs[1][:8])

    assert isinstance(comparison, Comparison)
    assert [run.run_id for run in comparison.runs] == [UUID(reference) for reference in runs]
    assert comparison.baseline == 1
    with get_client(sync_client=True) as client:
        artifacts = client.read_artifacts(artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=["comparison"])))
    page = next(str(artifact.data) for artifact in artifacts if runs[0] in str(artifact.data))
    assert "caused by fast\\_period: 7 -\\> 5" in page
    assert {artifact.type for artifact in artifacts} == {"markdown"}


def test_what_cannot_be_compared_fails_the_flow(environment: Settings) -> None:
    run = saved(environment, 5)

    with pytest.raises(ConfigError, match="1 run cannot"):
        compare(runs=[run])
    with pytest.raises(NotFoundError, match="nobody"):
        compare(runs=[run, "nobody"])
