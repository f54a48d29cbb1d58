"""Imported last by the process that workers are forked from: what is loaded by now stays, so that no worker's garbage
collector walks through it, and copies its memory by doing so."""

import contextlib
import gc

from ntrader.fingerprints import code, environment
from ntrader.strategies.registry import STRATEGIES

# What every worker would find out for itself, a tenth of a second each. Where it cannot be, they will say so.
with contextlib.suppress(Exception):
    environment()
    for entry in STRATEGIES:
        code(entry.path)

gc.collect()
gc.freeze()
