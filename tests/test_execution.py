"""From a config to a proven result, in fresh processes: equal to the bit, whatever Python's hashes do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ntrader.config import RunRequest
from ntrader.errors import DataNotFoundError
from ntrader.execution import execute
from ntrader.resolve import resolve

CONFIGS = ["sma_crossover", "momentum"]
CODE = """
import json, sys
from dataclasses import asdict
from pathlib import Path
from ntrader.config import RunRequest
from ntrader.execution import execute
from ntrader.resolve import resolve
home = Path("/nowhere")
for name in sys.argv[1:]:
    done = execute(resolve(RunRequest(config_path=f"config/strategies/{name}.yaml"), home), home)
    print(json.dumps({"digest": done.result_digest, **asdict(done.fingerprints)}))
"""


def answers(seed: str) -> list[dict[str, str]]:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CODE, *CONFIGS],
        env=os.environ | {"PYTHONHASHSEED": seed},
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_fresh_processes_with_other_hash_seeds_agree_to_the_bit() -> None:
    assert answers("0") == answers("4711")


def test_every_part_of_the_request_is_in_the_result(tmp_path: Path) -> None:
    request = RunRequest(strategy="momentum", symbol="IBM", start="2010-01-04", end="2010-12-31")
    config = resolve(request, tmp_path)

    done = execute(config, tmp_path)

    assert done.result.bars == 252
    assert done.result.initial_capital == 100_000
    assert done.first_bar < done.last_bar
    prints = done.fingerprints
    assert len({prints.config, prints.data, prints.code, prints.engine, prints.environment, prints.run_key}) == 6


@pytest.mark.parametrize("change", [{"symbol": "MSFT"}, {"start": "2010-01-05"}, {"parameters": {"lookback": 21}}])
def test_another_request_has_another_run_key(change: dict[str, object], tmp_path: Path) -> None:
    request = {"strategy": "momentum", "symbol": "IBM", "start": "2010-01-04", "end": "2010-12-31"}

    keys = {
        execute(resolve(RunRequest(**values), tmp_path), tmp_path).fingerprints.run_key
        for values in (request, request | change)
    }

    assert len(keys) == 2


def test_a_period_that_is_only_partly_covered_is_noted(tmp_path: Path) -> None:
    config = resolve(RunRequest(strategy="momentum", symbol="IBM", start="2001-01-01"), tmp_path)

    done = execute(config, tmp_path)

    assert done.notes == ("bars were asked for from 2001-01-01, and the first there is: 2005-03-01",)


def test_a_symbol_that_is_not_there_is_an_error_of_the_run(tmp_path: Path) -> None:
    config = resolve(RunRequest(strategy="momentum", symbol="NOPE"), tmp_path)

    with pytest.raises(DataNotFoundError, match="NOPE"):
        execute(config, tmp_path)
