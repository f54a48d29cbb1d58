"""Processes of a sweep are killed with -9 while it works; it is resumed until it is finished: the same as in peace.

The short form of benchmarks/chaos.py, which kills a hundred times.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from benchmarks.chaos import VICTIMS, Chaos, Plan
from benchmarks.same import Comparison, compare
from ntrader.settings import Settings
from tasks import server
from tests.conftest import create_database, settings_for
from tests.flows.sweeping import begin, scripted

TRIALS = 80
# Long enough for something to happen meanwhile, and no two come out alike.
SEARCH: dict[str, Any] = {
    "params": {"script": [{"3": f"sleep 0.05; buy {number}"} for number in range(1, TRIALS + 1)]},
}


def test_kills_lose_and_double_nothing(
    home: Path, template: str, prefect_server: str, settings: Settings, tmp_path: Path
) -> None:
    file = tmp_path / "sweep.yaml"
    base = scripted().model_dump(include={"strategy"})
    data = {"symbol": "AAPL", "start": "2008-01-01", "end": "2008-02-28"}
    file.write_text(yaml.safe_dump(base | {"data": data, "sweep": SEARCH}))
    peace = settings_for(home, create_database(home, template))
    begin(peace, SEARCH, scripted(), trials=TRIALS)
    chaos = Chaos(settings, Plan(kills=4, trials=TRIALS, longest_pause=0.3), file)

    chaos.run()

    assert {kind for kind in VICTIMS if chaos.verdict.killed[kind]} == set(VICTIMS)
    assert chaos.verdict.problems == []
    assert compare(peace, settings, TRIALS) == Comparison(TRIALS, lost=0, doubled=0, equal=TRIALS, problems=[])
    assert server.running_server(home) is not None
