"""What a person sees: a backtest started from the form in the browser, followed until it is done, and looked at."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from flows.deploy import deploy_all
from ntrader.settings import Settings
from storage.runs import list_runs
from tasks import pool
from tests import browser

pytestmark = [pytest.mark.long, pytest.mark.skipif(browser.CHROMIUM is None, reason="there is no Chromium here")]


@pytest.fixture
def worker(prefect_api: str, environment: Settings) -> Iterator[None]:
    deploy_all()
    pool.ensure_worker(environment, prefect_api)
    yield
    pool.stop_worker(environment.home)


@pytest.mark.usefixtures("worker")
def test_a_backtest_is_started_from_the_form_and_its_result_is_seen(prefect_api: str, environment: Settings) -> None:
    with browser.browser_page() as page:
        browser.start_from_form(
            page, prefect_api.removesuffix("/api"), "backtest", {"Symbol": "MSFT"}, {"Last day": "2009-12-31"}
        )
        browser.wait_until_completed(page)
        flow_run = page.url.rpartition("/")[2].partition("?")[0]
        browser.open_artifact(page, "backtest-summary")
        pictures = browser.widths_of_pictures(page)
        summary = page.locator("main").inner_text()
        page.get_by_role("link", name="This flow run").click()
        browser.open_artifact(page, "backtest-equity")
        pictures += browser.widths_of_pictures(page)

    (run,) = list_runs(environment, 10).runs
    assert run.execution_status == "success"
    assert str(run.flow_run_id) == flow_run
    assert run.instrument_symbol == "MSFT"
    assert (str(run.start_date)[:10], str(run.end_date)[:10]) == ("2008-01-01", "2009-12-31")
    assert "SMA Crossover on MSFT" in summary
    assert str(run.run_id) in summary
    assert len(pictures) == 2
    assert min(pictures) > 500  # pixels; 0 is what could not be drawn
