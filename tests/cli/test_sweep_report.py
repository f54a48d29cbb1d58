"""`ntrader sweep report` on a recorded sweep: the page, the numbers, and what is said when it cannot be."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from ntrader.config import sha256
from ntrader.results import Fingerprints
from ntrader.settings import Settings
from ntrader.sweeps.config import build_sweep
from ntrader.sweeps.points import Planned, points
from storage import recording, sweeps
from storage.database import writing
from tests import factories
from tests.cli.conftest import Here

NAME = "</script><b>odd</b>"


@pytest.fixture
def recorded(environment: Settings) -> int:
    """Four by three trials: the last waits, the one before has failed, the others are runs that there were before."""
    params = {"fast_period": {"range": [5, 20, 5]}, "slow_period": [50, 100, 200]}
    sweep = build_sweep({**factories.run_config().snapshot(), "sweep": {"params": params, "name": NAME}})
    planned = [Planned(point, _recorded(environment, point.number)) for point in points(sweep)]
    new = sweeps.NewSweep(
        sweep.fingerprint, "SMA Crossover", sweep.snapshot(), sweep.objective, sweep.direction, sweep.sampler,
        len(planned), name=NAME,
    )  # fmt: skip
    sweep_id = sweeps.create_sweep(environment, new, [planned])
    with writing(environment) as connection:
        connection.execute("UPDATE trials SET state = 'failed', reason = 'timeout' WHERE trial_number = 10")
    return sweep_id


def _recorded(settings: Settings, number: int) -> str:
    """A run whose Sharpe ratio grows with the number, and its key; of the last two only the key."""
    prints = Fingerprints(*(letter * 64 for letter in "abcde"), run_key=sha256(str(number)))
    if number < 10:
        result = factories.run_result([100_000.0, 101_000.0, 100_500.0, 101_000.0 + 100 * number])
        done = factories.execution(result, fingerprints=prints)
        run = factories.new_run()
        recording.start_run(settings, run)
        recording.save_success(settings, run.run_id, done, factories.metrics_of(done))
    return prints.run_key


def test_a_page_stands_where_it_was_wanted(here: Here, recorded: int, tmp_path: Path) -> None:
    page = tmp_path / "a b" / "sweep.html"
    page.parent.mkdir()
    page.write_text("old")

    answer = here("sweep", "report", str(recorded), "-o", str(page))

    assert (answer.code, answer.out, answer.err) == (0, "", f"Page written to {page}.\n")
    assert list(page.parent.iterdir()) == [page]
    text = page.read_text()
    assert text.startswith("<!doctype html>")
    assert "<b>odd" not in text
    assert "The sweep is interrupted: 11 of 12 trials are done." in text
    assert "<td>1 (1 timeout)</td>" in text
    assert text.count("<code class=copy>ntrader history show ") == 10


def test_the_commands_on_the_page_work(here: Here, recorded: int) -> None:
    page = here("sweep", "report", NAME, "-o", "-", "--top", "1").out

    (command,) = [part.split("</code>")[0] for part in page.split("<code class=copy>ntrader ")[1:]]
    assert here(*command.split()).code == 0


def test_the_numbers_are_those_of_the_trials(here: Here, environment: Settings, recorded: int, tmp_path: Path) -> None:
    file = tmp_path / "numbers.json"
    answer = here("sweep", "report", "@last", "--json")
    assert here("sweep", "report", "@last", "--json", "-o", str(file)).err == f"Numbers written to {file}.\n"
    assert file.read_text() == answer.out

    document = json.loads(answer.out)
    trials = sweeps.all_trials(environment, recorded)
    values = {trial.trial_number: trial.metrics["sharpe_ratio"] for trial in trials if trial.run_id}
    best = max(values, key=lambda number: values[number])
    assert document["trials"] == {
        "planned": 12, "done": 11, "success": 10, "linked": 10, "failed": {"timeout": 1}, "defined": 10,
    }  # fmt: skip
    assert [one["trial_number"] for one in document["top"]] == sorted(values, key=lambda n: -values[n])
    top = document["top"][0]
    assert (top["trial_number"], top["value"]) == (best, values[best])
    assert top["run_id"] == str(trials[best].run_id)
    assert top["metrics"]["total_return"] == trials[best].metrics["total_return"]
    # Trial 9 is fast 20, slow 50; its neighbours are 6 (fast 15) and 10, which has failed.
    assert top["axes"] == {"fast_period": 20, "slow_period": 50}
    assert (top["plateau"]["mean"], top["plateau"]["undefined"]) == (values[6], 1)


def test_outcomes_are_what_all_trials_say(environment: Settings, recorded: int) -> None:
    everything = sweeps.all_trials(environment, recorded)
    for metric in ("sharpe_ratio", "total_trades", "return_observations"):
        found = sweeps.outcomes(environment, recorded, metric)
        assert [asdict(one) for one in found] == [
            {
                "point": asdict(trial.point), "state": trial.state, "reason": trial.reason,
                "value": trial.metrics[metric], "observations": trial.metrics["return_observations"],
            }
            for trial in everything
        ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["@last"], 2, "there is no file to write the page to"),
        (["@last", "-o", "/nowhere/at/all.html"], 2, "there is no folder /nowhere/at"),
        (["@last", "-o", "/"], 2, "/ is a folder"),
        (["99", "--json"], 3, "there is no sweep '99'"),
        (["@last", "--json", "--top", "0"], 2, "--top"),
    ],
    ids=["no file", "no folder", "a folder", "no sweep", "none"],
)
def test_what_cannot_be_is_said(here: Here, recorded: int, words: list[str], code: int, said: str) -> None:
    answer = here("sweep", "report", *words)
    assert (answer.code, answer.out) == (code, "")
    assert said in answer.err
