"""Whom one follows, where no server can be asked."""

from __future__ import annotations

from flows.follow import find_stored
from ntrader.settings import Settings
from tests.storage import sweeps


def test_the_last_that_was_begun_is_a_sweep_where_it_is_one_of_its_trials(settings: Settings) -> None:
    sweep_id = sweeps.stored(settings, [1.0, 2.0])
    trial = sweeps.run_ids(settings, sweep_id)[-1]

    last, one = find_stored(settings, "@last"), find_stored(settings, trial)

    assert last is not None and last.sweep is not None
    assert (last.sweep.sweep.id, last.run) == (sweep_id, None)
    assert one is not None and one.run is not None
    assert (str(one.run.run_id), one.sweep) == (trial, None)
