"""YAML in: what it means, and what is said where it is wrong."""

from __future__ import annotations

import time
from itertools import pairwise
from pathlib import Path

import pytest

from ntrader.errors import ConfigError
from ntrader.yaml_file import parse_value, read_yaml


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config.yaml"


def refusal(file: Path, text: str | bytes) -> str:
    """What is said about a file, without its path."""
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(ConfigError) as caught:
        read_yaml(file)
    message = str(caught.value)
    assert "\n" not in message
    return message.replace(str(file), "FILE")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None), ("~", None), ("null", None),
        ("true", True), ("False", False),
        ("yes", "yes"), ("NO", "NO"), ("ON", "ON"), ("y", "y"),
        ("0", 0), ("-5", -5), ("1_000_000", 1_000_000), ("0001", "0001"), ("010", "010"),
        ("1.5", 1.5), ("1.", 1.0), (".5", 0.5), ("1e5", 1e5), ("1e-3", 1e-3), ("-1.5E+3", -1500.0),
        ("-.inf", float("-inf")),
        ("15:30", "15:30"), ("12:30:45", "12:30:45"), ("0x1F", "0x1F"), ("1.2.3", "1.2.3"),
        ("2012-12-31", "2012-12-31"), ("2012-13-45", "2012-13-45"), ("2012-12-31 10:00:00", "2012-12-31 10:00:00"),
        ("[1, a]", [1, "a"]), ("{a: 1}", {"a": 1}), ("'5'", "5"),
        ("a: b: c", "a: b: c"), ("[1", "[1"), ("@last", "@last"), ("100%", "100%"),
    ],
)  # fmt: skip
def test_a_value_means_what_it_looks_like(text: str, value: object) -> None:
    assert parse_value(text) == value
    assert type(parse_value(text)) is type(value)


def test_anchors_and_merge_keys_work(file: Path) -> None:
    file.write_text("base: &base {a: 1, b: 2}\nmine:\n  <<: *base\n  b: 3\n")
    assert read_yaml(file) == {"base": {"a": 1, "b": 2}, "mine": {"a": 1, "b": 3}}


def test_a_merged_key_may_be_overridden_at_any_depth(file: Path) -> None:
    file.write_text("a: &a {x: 1}\nouter:\n  inner: &b {<<: *a, x: 2}\nlast: {<<: *b, x: 3}\n")
    assert read_yaml(file) == {"a": {"x": 1}, "outer": {"inner": {"x": 2}}, "last": {"x": 3}}


def test_a_byte_order_mark_is_no_part_of_the_first_key(file: Path) -> None:
    file.write_text("a: 1\n", encoding="utf-8-sig")
    assert read_yaml(file) == {"a": 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1,\nb: 2\n", "FILE, line 3, column 1: not valid YAML: expected ',' or ']', but got '<stream end>'"),
        ("a: 1\n\tb: 2\n", "FILE, line 2, column 1: not valid YAML: found character '\\t' that cannot start any token"),
        ("a: 1\nb: 2\na: 3\n", "FILE, line 3, column 1: not valid YAML: 'a' is given twice"),
        ("d:\n  b: 2\n  b: 3\n", "FILE, line 3, column 3: not valid YAML: 'b' is given twice"),
        ("a: 1\n---\nb: 2\n", "FILE, line 2, column 1: not valid YAML: but found another document"),
        ("a: *x\n", "FILE, line 1, column 4: not valid YAML: found undefined alias 'x'"),
        ("a: &x [*x]\n", "FILE, line 1, column 4: not valid YAML: an alias contains itself"),
        ("a: 1\nb: \0\n", "FILE, line 2: not valid YAML: the character '\\x00' is not allowed"),
        ("{[1]: 2}\n", "FILE, line 1, column 2: not valid YAML: found unhashable key"),
        ("a: !!python/name:os.system\n", "FILE, line 1, column 4: not valid YAML: could not determine a constructor "
         "for the tag 'tag:yaml.org,2002:python/name:os.system'"),
        ("a: !!int many\n", "FILE: not valid YAML: invalid literal for int() with base 10: 'many'"),
        ("a: !!bool maybe\n", "FILE: not valid YAML: 'maybe'"),
        ("a: " + "[" * 5000, "FILE: not valid YAML: nested too deeply"),
        ("", "FILE: expected a mapping of settings at the top, found nothing"),
        ("# only a comment\n", "FILE: expected a mapping of settings at the top, found nothing"),
        ("- a\n- b\n", "FILE: expected a mapping of settings at the top, found a list"),
        ("sma_crossover\n", "FILE: expected a mapping of settings at the top, found text"),
        (b"a: \xff\n", "config file FILE cannot be read: it is not UTF-8 text"),
        ("a: " + "x" * 1_000_000, "config file FILE is larger than 1 MB"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_file_and_line(file: Path, text: str | bytes, message: str) -> None:
    assert refusal(file, text) == message


@pytest.mark.parametrize(
    "link", ["[*{0}, *{0}, *{0}, *{0}, *{0}, *{0}, *{0}, *{0}]", "{{<<: [*{0}, *{0}, *{0}, *{0}]}}"]
)
def test_a_few_lines_that_stand_for_billions_are_refused_at_once(file: Path, link: str) -> None:
    names = [f"x{number}" for number in range(30)]
    lines = ["x0: &x0 {k: v}", *(f"{b}: &{b} {link.format(a)}" for a, b in pairwise(names))]
    began = time.monotonic()
    assert "more than 100,000 values, with aliases expanded" in refusal(file, "\n".join(lines))
    assert time.monotonic() - began < 5


def test_a_missing_file_suggests_its_neighbour(file: Path) -> None:
    file.write_text("a: 1\n")
    with pytest.raises(ConfigError, match=r"confg\.yaml does not exist$") as caught:
        read_yaml(file.with_name("confg.yaml"))
    assert caught.value.hint == f"Did you mean {file}?"


def test_a_missing_folder_is_a_missing_file(file: Path) -> None:
    with pytest.raises(ConfigError, match=r"does not exist$") as caught:
        read_yaml(file.parent / "nowhere" / "config.yaml")
    assert caught.value.hint is None


def test_a_folder_is_not_a_config_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot be read: Is a directory$"):
        read_yaml(tmp_path)
