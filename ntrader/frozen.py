"""Imported last by the process that workers are forked from: what is loaded by now stays, so that no worker's garbage
collector walks through it, and copies its memory by doing so."""

import gc

gc.collect()
gc.freeze()
