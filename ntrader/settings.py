"""Settings from flags, environment and `.env`, validated once; secrets are masked wherever they are shown."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

from ntrader.errors import ConfigError

_SECRET = re.compile("pass|secret|scram", re.IGNORECASE)
_PORTS = re.compile(r"[^:]*|(\[[^\]]*\]|[^:]*)(:\d*)?(,(\[[^\]]*\]|[^:]*)(:\d*)?)*")
_TRUE = {"1", "true", "yes", "on"}
_FALSE = {"0", "false", "no", "off"}
# PostgreSQL's settings and libpq's are 32-bit integers; a larger number would fail far from where it was written.
_LARGEST = 2**31 - 1
_ASSIGNMENT = re.compile(r"(?:export\s+)?(?P<name>[^\s=#]+)\s*=\s*(?P<value>.*)")
_QUOTED = re.compile(r"""(?P<quote>["'])(?P<text>.*?)(?P=quote)\s*(?:#.*)?""")


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that may differ from machine to machine but never changes a backtest's result."""

    home: Path
    database_url: str | None = field(default=None, repr=False)
    prefect_api_url: str | None = None
    runner: str = "local"
    dask_scheduler: str | None = None
    persistence: bool = True
    db_pool_size: int = 20
    db_max_overflow: int = 10
    db_pool_recycle: int = 3600
    db_pool_pre_ping: bool = True
    db_echo: bool = False
    db_statement_timeout: int = 30_000
    db_query_cache_size: int = 500

    @property
    def embedded(self) -> bool:
        """Whether runs go to the PostgreSQL that ntrader starts by itself."""
        return self.database_url is None

    @property
    def masked_database_url(self) -> str:
        return mask_url(self.database_url) if self.database_url else "embedded PostgreSQL"


def load_settings(environ: dict[str, str] | None = None, *, dotenv: Path | None = Path(".env")) -> Settings:
    """Read the settings; the environment wins over `.env`, which wins over the defaults.

    Raises ConfigError naming the variable and the value that does not fit.
    """
    env = dict(os.environ if environ is None else environ)
    merged = {**(read_dotenv(dotenv) if dotenv else {}), **env}

    def text(name: str) -> str | None:
        return merged.get(name, "").strip() or None

    return Settings(
        home=_folder("NTRADER_HOME", text("NTRADER_HOME") or _default_home(env)),
        database_url=text("DATABASE_URL"),
        prefect_api_url=text("PREFECT_API_URL"),
        runner=text("NTRADER_RUNNER") or "local",
        dask_scheduler=text("NTRADER_DASK_SCHEDULER"),
        persistence=_boolean(merged, "ENABLE_BACKTEST_PERSISTENCE", True),
        db_pool_size=_integer(merged, "DB_POOL_SIZE", 20, minimum=1),
        db_max_overflow=_integer(merged, "DB_MAX_OVERFLOW", 10, minimum=-1),
        db_pool_recycle=_integer(merged, "DB_POOL_RECYCLE", 3600, minimum=-1),
        db_pool_pre_ping=_boolean(merged, "DB_POOL_PRE_PING", True),
        db_echo=_boolean(merged, "DB_ECHO", False),
        db_statement_timeout=_integer(merged, "DB_STATEMENT_TIMEOUT", 30_000, minimum=0),
        db_query_cache_size=_integer(merged, "DB_QUERY_CACHE_SIZE", 500, minimum=0),
    )


def mask_url(url: str) -> str:
    """The URL with its passwords replaced by `***`, even when one holds an unescaped `@`, `/`, `:` or `?`.

    Where such a URL has two readings and one of them would show a part of the password, all of it is hidden.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        return "***"
    before, at, after = rest.rpartition("@")
    if "=" in before.partition("?")[2]:
        # The last @ may belong to the query, or the ? to the password.
        if ":" in before:
            return f"{scheme}://***"
        before, at, after = "", "", rest
    place = after.partition("?")[0].partition("/")[0]
    if not at and not _PORTS.fullmatch(place):
        # `user:password` without a host looks like a host with an odd port.
        return f"{scheme}://***"
    user, colon, _ = before.partition(":")
    login = f"{user}:***@" if colon else f"{before}{at}"
    return f"{scheme}://{login}{_mask_query(after)}"


def _mask_query(location: str) -> str:
    place, mark, query = location.partition("?")
    pairs = (pair.partition("=") for pair in query.split("&"))
    masked = (f"{key}=***" if _SECRET.search(unquote(key)) else f"{key}{sign}{value}" for key, sign, value in pairs)
    return f"{place}{mark}{'&'.join(masked)}"


def read_dotenv(path: Path) -> dict[str, str]:
    """The assignments of a `.env` file; a missing file is an empty one. Values are never expanded."""
    if path.is_dir():  # somebody's virtual environment
        return {}
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        return {}
    except UnicodeDecodeError:
        raise ConfigError(f"{path} cannot be read: it is not UTF-8 text") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from error
    values = {}
    for number, raw in enumerate(lines, start=1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        match = _ASSIGNMENT.fullmatch(line)
        value = _unquoted(match["value"]) if match else None
        if match is None or value is None:
            # The line itself is not shown: it may hold a secret.
            reason = "a quote is not closed" if match else "expected NAME=value"
            raise ConfigError(f"{path}, line {number}: {reason}")
        values[match["name"]] = value
    return values


def _unquoted(value: str) -> str | None:
    """What is between the quotes, or all up to a comment; None where a quote is not closed."""
    if value[:1] in {"'", '"'}:
        match = _QUOTED.fullmatch(value)
        return match["text"] if match else None
    return "" if value.startswith("#") else re.split(r"\s#", value, maxsplit=1)[0].rstrip()


def _default_home(env: dict[str, str]) -> str:
    data = env.get("XDG_DATA_HOME") or str(Path(env.get("HOME") or "~") / ".local" / "share")
    return str(Path(data) / "ntrader")


def _folder(name: str, raw: str) -> Path:
    try:
        return Path(raw).expanduser().absolute()
    except RuntimeError:  # no such user, or a user without a home
        raise ConfigError(f"{name}: the home directory in {raw!r} is not known", hint=f"Set {name} in full.") from None


def _integer(values: dict[str, str], name: str, default: int, *, minimum: int) -> int:
    raw = values.get(name, "").strip()
    if not raw:
        return default
    try:
        number = int(raw)
    except ValueError:
        raise ConfigError(f"{name} must be a whole number, got {raw!r}") from None
    if not minimum <= number <= _LARGEST:
        bound = f"at least {minimum}" if number < minimum else f"at most {_LARGEST}"
        raise ConfigError(f"{name} must be {bound}, got {number}")
    return number


def _boolean(values: dict[str, str], name: str, default: bool) -> bool:
    raw = values.get(name, "").strip().lower()
    if not raw:
        return default
    if raw in _TRUE | _FALSE:
        return raw in _TRUE
    raise ConfigError(f"{name} must be true or false, got {raw!r}")
