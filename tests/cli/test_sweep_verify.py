"""`ntrader sweep verify` as one types it, over trials that the engine has run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ntrader.settings import Settings
from storage.labels import delete_runs
from storage.sweeps import get_sweep
from tests.cli.conftest import Answer, Here
from tests.flows.stored import Own, make_own, tamper
from tests.storage import sweeps


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefect_server: str, environment: Settings) -> Own:
    """A strategy of one's own in the current folder, and bars that can be taken away."""
    monkeypatch.chdir(tmp_path)
    return make_own(tmp_path)


def verdicts(answer: Answer) -> dict[int, str]:
    return {row["trial"]: row["verdict"] for row in json.loads(answer.out)}


def test_trials_are_verified_by_themselves(own: Own, here: Here, environment: Settings) -> None:
    words = ["-s", own.strategy, "--symbol", "OWN", "--csv", str(own.data.path), "--param", "limit=96,98,100,102,104"]
    ran = here("sweep", "run", *words, "--workers", "1", "--no-verify", "--json")
    assert ran.code == 0, ran.err
    best = json.loads(ran.out)["best"]["trial_number"]
    found = get_sweep(environment, "1")
    assert (found.verified, found.state) == (None, "finished")
    assert 0 < found.seconds < 60

    # The best, and others that the seed chooses, alike each time; what is unsaid stays unsaved.
    first = here("sweep", "verify", "1", "--trials", "3", "--seed", "5", "--json")
    assert first.code == 0, first.err
    assert set(verdicts(first).values()) == {"identical"}
    assert len(verdicts(first)) == 3
    assert best in verdicts(first)
    assert "3 of 5 trials, chosen with --seed 5." in first.err
    assert "3 of 3 identical." in first.err
    assert get_sweep(environment, "1").verified is True
    assert json.loads(here("history", "list", "--json").out)["total"] == 5
    assert verdicts(here("sweep", "verify", "1", "-n", "3", "--seed", "5", "--json")) == verdicts(first)

    # Another result than was stored: the sweep knows it of its best.
    own.change("__init__.py", "MARGIN = 1.0", "MARGIN = 3.0")
    different = here("sweep", "verify", "1", "--trials", "1", "--json")
    assert (different.code, verdicts(different)) == (6, {best: "different"})
    assert get_sweep(environment, "1").verified is False
    own.change("__init__.py", "MARGIN = 3.0", "MARGIN = 1.0")

    # Not to be run: one is damaged, one is deleted and not even tried.
    runs = sweeps.run_ids(environment, 1)
    damaged, deleted = (best + 1) % 5, (best + 2) % 5
    tamper(environment, f"UPDATE backtest_runs SET result_digest = repeat('0', 64) WHERE run_id = '{runs[damaged]}'")
    delete_runs(environment, [runs[deleted]])
    some = here("sweep", "verify", "@last", "--all")
    assert some.code == 4
    (row,) = [line.split() for line in some.out.splitlines() if "not run" in line]
    assert row[:2] == [str(damaged), runs[damaged][:8]]
    assert "3 of 4 identical." in some.err
    assert get_sweep(environment, "1").verified is True


def test_what_cannot_be_verified_is_said(own: Own, here: Here, environment: Settings) -> None:
    sweeps.stored(environment, ["exception"])
    answer = here("sweep", "verify", "1")
    assert (answer.code, answer.err.splitlines()[0]) == (3, "Error: sweep 1 has no successful trial")
    assert here("sweep", "verify", "1", "--all", "--trials", "2").code == 2
    assert here("sweep", "verify", "2").code == 3
