"""Settings: environment over `.env` over defaults, each validated by name, and passwords never shown."""

from __future__ import annotations

import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntrader.errors import ConfigError
from ntrader.settings import Settings, load_settings, mask_url, read_dotenv

URL = "postgresql://me:secret@host/db"


def load(dotenv: Path | None = None, **environ: str) -> Settings:
    return load_settings({"HOME": "/home/me", **environ}, dotenv=dotenv)


@pytest.fixture
def dotenv(tmp_path: Path) -> Path:
    return tmp_path / ".env"


# Precedence


def test_without_anything_the_defaults_hold() -> None:
    assert load() == Settings(home=Path("/home/me/.local/share/ntrader"))
    assert load().embedded


def test_the_file_wins_over_the_default(dotenv: Path) -> None:
    dotenv.write_text(f"DATABASE_URL={URL}\nDB_POOL_SIZE=7\nENABLE_BACKTEST_PERSISTENCE=no\n")
    settings = load(dotenv)
    assert (settings.database_url, settings.db_pool_size, settings.persistence) == (URL, 7, False)
    assert not settings.embedded


def test_the_environment_wins_over_the_file(dotenv: Path) -> None:
    dotenv.write_text("DB_POOL_SIZE=7\nDB_MAX_OVERFLOW=8\n")
    settings = load(dotenv, DB_POOL_SIZE="9")
    assert (settings.db_pool_size, settings.db_max_overflow) == (9, 8)


def test_an_empty_variable_unsets_what_the_file_says(dotenv: Path) -> None:
    dotenv.write_text(f"DATABASE_URL={URL}\nDB_POOL_SIZE=7\n")
    settings = load(dotenv, DATABASE_URL="", DB_POOL_SIZE=" ")
    assert (settings.database_url, settings.db_pool_size) == (None, 20)


def test_the_current_folder_is_where_the_file_is_looked_for(dotenv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dotenv.write_text("DB_POOL_SIZE=3\n")
    monkeypatch.chdir(dotenv.parent)
    assert load_settings({"HOME": "/"}).db_pool_size == 3


def test_the_process_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DB_POOL_SIZE", "4")
    assert load_settings(dotenv=None).db_pool_size == 4


# Single values

INTEGERS = {
    "DB_POOL_SIZE": ("db_pool_size", 1),
    "DB_MAX_OVERFLOW": ("db_max_overflow", -1),
    "DB_POOL_RECYCLE": ("db_pool_recycle", -1),
    "DB_STATEMENT_TIMEOUT": ("db_statement_timeout", 0),
    "DB_QUERY_CACHE_SIZE": ("db_query_cache_size", 0),
}
BOOLEANS = {
    "ENABLE_BACKTEST_PERSISTENCE": "persistence",
    "DB_POOL_PRE_PING": "db_pool_pre_ping",
    "DB_ECHO": "db_echo",
}


@pytest.mark.parametrize("name", INTEGERS)
def test_a_number_may_be_as_low_as_its_minimum(name: str) -> None:
    field, minimum = INTEGERS[name]
    assert getattr(load(**{name: f" {minimum} "}), field) == minimum


@pytest.mark.parametrize("name", INTEGERS)
@pytest.mark.parametrize("text", ["many", "1.5", "-2", "2147483648", "0x10", "1,000"])
def test_a_number_that_does_not_fit_is_refused_by_name(name: str, text: str) -> None:
    with pytest.raises(ConfigError, match=f"^{name} must be .* got ") as caught:
        load(**{name: text})
    assert text in str(caught.value)


@pytest.mark.parametrize("name", BOOLEANS)
@pytest.mark.parametrize("text", ["1", "true", "True", "YES", "on", " On "])
def test_spellings_of_true(name: str, text: str) -> None:
    assert getattr(load(**{name: text}), BOOLEANS[name]) is True


@pytest.mark.parametrize("name", BOOLEANS)
@pytest.mark.parametrize("text", ["0", "false", "FALSE", "no", "Off"])
def test_spellings_of_false(name: str, text: str) -> None:
    assert getattr(load(**{name: text}), BOOLEANS[name]) is False


@pytest.mark.parametrize("name", BOOLEANS)
def test_another_word_for_true_or_false_is_refused_by_name(name: str) -> None:
    with pytest.raises(ConfigError, match=f"^{name} must be true or false, got 'maybe'$"):
        load(**{name: "maybe"})


def test_home_expands_the_tilde(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/you")
    assert load(NTRADER_HOME="~/runs").home == Path("/home/you/runs")


def test_home_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load(NTRADER_HOME="runs").home == tmp_path / "runs"


def test_home_follows_xdg() -> None:
    assert load(XDG_DATA_HOME="/data").home == Path("/data/ntrader")


def test_home_of_an_unknown_user_is_refused() -> None:
    with pytest.raises(ConfigError, match="NTRADER_HOME: the home directory in '~nobody-here/x' is not known"):
        load(NTRADER_HOME="~nobody-here/x")


def test_a_user_without_a_home_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # as in a container with a user id of its own
    with pytest.raises(ConfigError, match="home directory") as caught:
        load_settings({}, dotenv=None)
    assert caught.value.hint == "Set NTRADER_HOME in full."


# The .env file


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("NAME=value", "value"),
        ("  NAME = value  ", "value"),
        ("export NAME=value", "value"),
        ("export\tNAME=value", "value"),
        ("NAME=", ""),
        ("NAME=a b", "a b"),
        ("NAME='a b'", "a b"),
        ('NAME="a b"', "a b"),
        ('NAME="a # b"', "a # b"),
        ('NAME="a" # why', "a"),
        ("NAME='it''s'", "it''s"),
        ("NAME=a # why", "a"),
        ("NAME=a\t# why", "a"),
        ("NAME=# why", ""),
        ("NAME=a#b", "a#b"),
        ("NAME=it's", "it's"),
        ("NAME=$HOME/x", "$HOME/x"),
        ("NAME=a=b==", "a=b=="),
        (f"NAME={URL}?x=1#f", f"{URL}?x=1#f"),
        ("\ufeffNAME=value", "value"),
    ],
)
def test_a_line_of_a_dotenv_file(dotenv: Path, line: str, value: str) -> None:
    dotenv.write_text(f"{line}\r\n", encoding="utf-8")
    assert read_dotenv(dotenv) == {"NAME": value}


def test_comments_and_empty_lines_are_skipped(dotenv: Path) -> None:
    dotenv.write_text("# a comment\n\n   \n  # another\nNAME=1\n")
    assert read_dotenv(dotenv) == {"NAME": "1"}


@pytest.mark.parametrize("line", ["NAME", "two words=1", "=1", "export", "NAME='open", 'NAME="a" b'])
def test_a_bad_line_is_named_by_its_number_and_not_shown(dotenv: Path, line: str) -> None:
    dotenv.write_text(f"OK=1\n# comment\n{line}\n")
    with pytest.raises(ConfigError) as caught:
        read_dotenv(dotenv)
    assert str(caught.value) in {f"{dotenv}, line 3: {why}" for why in ("expected NAME=value", "a quote is not closed")}


def test_no_file_is_an_empty_one(dotenv: Path) -> None:
    assert read_dotenv(dotenv) == {}


def test_a_virtual_environment_of_that_name_is_left_alone(dotenv: Path) -> None:
    dotenv.mkdir()
    assert read_dotenv(dotenv) == {}


def test_a_file_that_is_not_text_is_refused(dotenv: Path) -> None:
    dotenv.write_bytes(b"NAME=\xff\n")
    with pytest.raises(ConfigError, match=r"\.env cannot be read: it is not UTF-8 text$"):
        read_dotenv(dotenv)


# Secrets


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (URL, "postgresql://me:***@host/db"),
        ("postgresql://me@host/db", "postgresql://me@host/db"),
        ("postgresql://host/db", "postgresql://host/db"),
        ("postgresql:///db?host=/var/run", "postgresql:///db?host=/var/run"),
        ("postgresql+asyncpg://me:a@b@host:5432/db", "postgresql+asyncpg://me:***@host:5432/db"),
        ("postgresql://me:a/b@host/db", "postgresql://me:***@host/db"),
        ("postgresql://me:a:b@host/db", "postgresql://me:***@host/db"),
        ("postgresql://me:a?b@host/db", "postgresql://me:***@host/db"),
        ("postgresql://me:a#b@host/db", "postgresql://me:***@host/db"),
        ("postgresql://me:a%40b@host/db?sslmode=require", "postgresql://me:***@host/db?sslmode=require"),
        ("postgresql://:secret@host/db", "postgresql://:***@host/db"),
        ("postgresql://me:secret@h1:5432,h2:5433/db", "postgresql://me:***@h1:5432,h2:5433/db"),
        ("postgresql://host/db?user=me&password=secret&x=1", "postgresql://host/db?user=me&password=***&x=1"),
        ("postgresql://host/db?password=a@b", "postgresql://host/db?password=***"),
        ("postgresql://host/db?password=a#b", "postgresql://host/db?password=***"),
        ("postgresql://host/db?sslPassword=secret", "postgresql://host/db?sslPassword=***"),
        ("postgresql://host/db?pass%77ord=secret", "postgresql://host/db?pass%77ord=***"),
        ("postgresql://me:a@host/db?password=b", "postgresql://me:***@host/db?password=***"),
        ("postgresql://host/db?scram_client_key=secret", "postgresql://host/db?scram_client_key=***"),
        ("postgresql://h1:5432,[::1]:5433,h3/db", "postgresql://h1:5432,[::1]:5433,h3/db"),
        ("postgresql://me:secret/db", "postgresql://***"),
        ("postgresql://host:5432/db?password=a@b", "postgresql://***"),
        ("postgresql://me:a?b=c@host/db", "postgresql://***"),
        ("host=h user=me password=secret", "***"),
    ],
)
def test_a_url_is_shown_without_its_passwords(url: str, shown: str) -> None:
    assert mask_url(url) == shown


@given(password=st.text(string.ascii_uppercase + string.punctuation, min_size=1))
def test_no_password_shows_any_part_of_itself(password: str) -> None:
    whole = "postgresql://me:***@host:5432/db?sslmode=require"
    assert mask_url(f"postgresql://me:{password}@host:5432/db?sslmode=require") in {whole, "postgresql://***"}


@given(password=st.text(string.ascii_uppercase + string.punctuation.replace("&", ""), min_size=1))
def test_no_password_in_the_query_shows_any_part_of_itself(password: str) -> None:
    whole = "postgresql://host:5432/db?password=***&sslmode=require"
    assert mask_url(f"postgresql://host:5432/db?password={password}&sslmode=require") in {whole, "postgresql://***"}


def test_neither_repr_nor_str_shows_the_database_url() -> None:
    settings = load(DATABASE_URL=URL)
    assert "secret" not in repr(settings) + str(settings)
    assert settings.masked_database_url == "postgresql://me:***@host/db"


def test_without_a_url_the_embedded_database_is_named() -> None:
    assert load().masked_database_url == "embedded PostgreSQL"
