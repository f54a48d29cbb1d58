"""`ntrader sweep list` and `status` as one types them."""

from __future__ import annotations

import csv
import io
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from cli import standings
from ntrader.settings import Settings
from storage import leases, trials
from storage.trials import Portion
from tests.cli.conftest import Here
from tests.storage.sweeps import carried_out, finish, stored, written


def table(text: str) -> list[list[str]]:
    """The cells of each line below the heading, which two blanks keep apart."""
    return [[cell for cell in line.split("  ") if cell] for line in text.splitlines()[2:]]


def stripped(rows: list[list[str]]) -> list[list[str]]:
    return [[cell.strip() for cell in row] for row in rows]


# Lists


def test_without_a_sweep_the_list_says_how_to_begin(here: Here) -> None:
    answer = here("sweep", "list")
    assert (answer.code, answer.out) == (0, "")
    assert "ntrader sweep run config/sweeps/sma_grid.yaml" in answer.err
    assert json.loads(here("sweep", "list", "--json").out) == {"sweeps": [], "total": 0}


def test_sweeps_are_listed_newest_first_with_the_best_of_each(here: Here, environment: Settings) -> None:
    stored(environment, [0.1, 0.3, "exception"], name="the first")
    stored(environment, [0.2, None], name="the second", objective="final_balance")

    answer = here("sweep", "list")

    rows = stripped(table(answer.out))
    assert answer.code == 0
    assert [[*row[:1], *row[2:]] for row in rows] == [
        ["2", "the second", "SMA Crossover", "interrupted", "1/2", "0", "final_balance", "120,000.0000"],
        ["1", "the first", "SMA Crossover", "finished", "3/3", "1", "total_return", "30.00%"],
    ]
    assert answer.err == ""


def test_a_list_that_is_cut_short_says_so(here: Here, environment: Settings) -> None:
    for _ in range(3):
        written(environment, 1)
    answer = here("sweep", "list", "--limit", "2")
    assert [row[0].strip() for row in table(answer.out)] == ["3", "2"]
    assert answer.err == "Showing 2 of 3 sweeps. More: --limit 3\n"
    assert here("sweep", "list", "--limit", "0").code == 2


def test_other_formats_have_every_digit(here: Here, environment: Settings, tmp_path: Path) -> None:
    stored(environment, [1 / 3, 0.1], name="a,b")
    document = json.loads(here("sweep", "list", "--json").out)
    (sweep,) = document["sweeps"]
    assert (document["total"], sweep["name"], sweep["done"], sweep["trials"]) == (1, "a,b", 2, 2)
    assert sweep["best_value"] == pytest.approx(1 / 3, rel=1e-15)
    assert (sweep["best_trial"], sweep["state"], sweep["holders"]) == (0, "finished", [])

    file = tmp_path / "sweeps.csv"
    assert here("sweep", "list", "--format", "csv", "-o", str(file)).out == ""
    (row,) = csv.DictReader(io.StringIO(file.read_text()))
    assert (row["name"], float(row["best_value"])) == ("a,b", sweep["best_value"])
    assert json.loads(here("sweep", "list", "--format", "ndjson").out)["name"] == "a,b"
    assert "| a,b |" in here("sweep", "list", "--format", "md").out


# Status


def test_status_shows_what_is_not_finished_and_who_is_at_it(here: Here, environment: Settings) -> None:
    stored(environment, [0.1], keys=["a"])
    sweep_id = written(environment, 6, keys=["a"], name="under way")
    carried_out(environment, sweep_id, [0.1, "timeout"])
    trials.reserve(environment, sweep_id, uuid4(), leases.owner(), Portion(2))
    trials.reserve(environment, sweep_id, uuid4(), "far|boot|pid/77/1", Portion(1))

    answer = here("sweep", "status")

    (row,) = stripped(table(answer.out))
    machine = leases.describe(leases.owner())[0]
    assert row[:-1] == ["2", "under way", "running", "3/6", "1", "1", "0", "3", "0.0 s"]
    assert set(row[-1].split("; ")) == {f"{machine}: {os.getpid()}", "far: 77"}
    (document,) = json.loads(here("sweep", "status", "under way", "--json").out)["sweeps"]
    assert [document[name] for name in ("success", "linked", "failed", "waiting", "running")] == [2, 1, 1, 0, 3]
    assert {holder["machine"]: holder["trials"] for holder in document["holders"]} == {machine: 2, "far": 1}


def test_status_of_nothing(here: Here, environment: Settings) -> None:
    stored(environment, [0.1])
    assert (here("sweep", "status").err, here("sweep", "status").out) == ("No sweep is unfinished.\n", "")
    assert table(here("sweep", "status", "@last").out)[0][2].strip() == "finished"
    missing = here("sweep", "status", "7")
    assert (missing.code, missing.err) == (
        3, "Error: there is no sweep '7'\n`ntrader sweep list` shows what there is.\n",
    )  # fmt: skip


@contextmanager
def meanwhile(settings: Settings, sweep_id: int) -> Iterator[None]:
    """Another thread runs the sweep to its end, a trial now and then."""

    def work() -> None:
        for _ in range(3):
            time.sleep(0.3)
            carried_out(settings, sweep_id, [0.1])
        finish(settings, sweep_id)

    thread = threading.Thread(target=work)
    thread.start()
    yield
    thread.join()


def test_watch_ends_with_the_sweep(here: Here, environment: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standings, "_REFRESH_SECONDS", 0.05)
    monkeypatch.setattr(standings, "_SAY_SECONDS", 0.0)
    sweep_id = written(environment, 3)

    with meanwhile(environment, sweep_id):
        answer = here("sweep", "status", "--watch")

    assert answer.code == 0
    assert stripped(table(answer.out))[0][2:4] == ["finished", "3/3"]
    said = answer.err.splitlines()
    assert said[0] == f"Sweep {sweep_id}: 0 of 3 trials"
    assert any(line.startswith(f"Sweep {sweep_id}: 2 of 3 trials, ") for line in said)
    assert "best 0.1 (trial 0)" in said[-1]


def test_watch_does_not_wait_for_nobody(here: Here, environment: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standings, "_REFRESH_SECONDS", 0.05)
    monkeypatch.setattr(standings, "_NOBODY_SECONDS", 0.2)
    sweep_id = stored(environment, [0.1, None])

    answer = here("sweep", "status", str(sweep_id), "--watch")

    assert answer.code == 4
    assert stripped(table(answer.out))[0][2] == "interrupted"
    assert answer.err.splitlines()[-2:] == [
        f"Error: nobody works on sweep {sweep_id}",
        f"Go on with: ntrader sweep resume {sweep_id}",
    ]
