"""Columns as bytes and back: whatever the 64 bits of a number are, they come back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from storage.codec import decode, encode
from tests.factories import DAY, START

WORDS = st.lists(st.integers(0, 2**64 - 1), max_size=200)


def bits(column: NDArray[np.generic]) -> list[int]:
    return [int(word) for word in column.view(np.uint64)]


@given(WORDS)
def test_any_int64_column_comes_back(words: list[int]) -> None:
    column = np.array(words, dtype=np.uint64).view(np.int64)
    back = decode(encode(column), "i8")
    assert (str(back.dtype), bits(back)) == ("int64", words)


@given(WORDS)
def test_any_float64_column_comes_back_whatever_its_bits_mean(words: list[int]) -> None:
    column = np.array(words, dtype=np.uint64).view(np.float64)
    back = decode(encode(column), "f8")
    assert (str(back.dtype), bits(back)) == ("float64", words)


@given(st.lists(st.floats(), max_size=50))
def test_any_floats_come_back(values: list[float]) -> None:
    column = np.array(values, dtype=np.float64)
    assert bits(decode(encode(column), "f8")) == bits(column)


@pytest.mark.parametrize("word", [0x7FF8000000000001, 0x7FF0000000000001, 0xFFF8DEADBEEF0000, 0x8000000000000000, 1])
def test_payloads_of_nan_minus_zero_and_subnormals_come_back(word: int) -> None:
    column = np.full(1000, word, dtype=np.uint64).view(np.float64)
    assert bits(decode(encode(column), "f8")) == [word] * 1000


@pytest.mark.parametrize("values", [[], [0], [-1], [2**63 - 1, -(2**63)]])
def test_short_columns_come_back(values: list[int]) -> None:
    column = np.array(values, dtype=np.int64)
    assert decode(encode(column), "i8").tolist() == values


def test_a_column_that_is_read_back_may_be_written_to() -> None:
    for column in (np.zeros(100), np.random.default_rng(0).random(3)):
        decode(encode(column), "f8")[0] = 1.0


def test_what_lies_apart_in_memory_is_stored_as_what_it_says() -> None:
    column = np.arange(20, dtype=np.float64)[::2]
    assert decode(encode(column), "f8").tolist() == column.tolist()


def test_a_column_of_other_numbers_is_refused() -> None:
    for kind in (np.float32, np.int32, np.dtype(">f8"), np.uint8):
        with pytest.raises(TypeError, match="int64 or float64"):
            encode(np.zeros(8, dtype=kind))


def test_random_bytes_cost_one_byte_more_and_no_more() -> None:
    column = np.random.default_rng(1).integers(-(2**63), 2**63 - 1, 1000)
    assert len(encode(column)) == 8 * 1000 + 1
    assert decode(encode(column), "i8").tolist() == column.tolist()


def test_a_realistic_curve_is_small() -> None:
    """3,300 days of 100 shares held for stretches, prices to the cent: raw it is 53 kB."""
    random = np.random.default_rng(2)
    prices = np.round(100 * np.cumprod(1 + random.normal(0.0003, 0.01, 3300)), 2)
    held = np.repeat(random.integers(0, 2, 66), 50)
    equity = 100_000 + np.concatenate(([0.0], np.cumsum(100 * held[1:] * np.diff(prices))))
    times = START + DAY * np.arange(1, 3301, dtype=np.int64)
    assert len(encode(times)) < 500
    assert len(encode(equity)) < 20_000
    assert bits(decode(encode(equity), "f8")) == bits(equity)
