"""The same backtest in many fresh processes, each with another PYTHONHASHSEED: one result digest, or it is a bug.

    uv run python -m benchmarks.determinism [--processes 20] [--config config/strategies/sma_crossover.yaml]

Nothing is saved and no service is needed: this is about the engine and what we read from it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections import Counter

CODE = """
import sys
from pathlib import Path
from ntrader.config import RunRequest
from ntrader.execution import execute
from ntrader.resolve import resolve
config = resolve(RunRequest(config_path=sys.argv[1]), Path("/nowhere"))
done = execute(config, Path("/nowhere"))
print(done.result_digest, done.fingerprints.run_key)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=20)
    parser.add_argument("--config", default="config/strategies/sma_crossover.yaml")
    arguments = parser.parse_args()
    answers: Counter[str] = Counter()
    began = time.perf_counter()
    for seed in range(arguments.processes):
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", CODE, arguments.config],
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
            check=True,
            text=True,
            capture_output=True,
        )
        answers[done.stdout.strip()] += 1
    for answer, count in answers.most_common():
        digest, run_key = answer.split()
        print(f"{count:3} x  result digest {digest}  run key {run_key}")
    print(f"{arguments.processes} processes, {len(answers)} answer(s), {time.perf_counter() - began:.1f} s")
    if len(answers) != 1:
        raise SystemExit("not deterministic")


if __name__ == "__main__":
    main()
