"""Settings from flags, environment and `.env`, validated once; secrets are masked wherever they are shown."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from ntrader.errors import ConfigError

_TRUE = {"1", "true", "yes", "on"}
_FALSE = {"0", "false", "no", "off"}


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that may differ from machine to machine but never changes a backtest's result."""

    home: Path
    database_url: str | None = field(default=None, repr=False)
    prefect_api_url: str | None = None
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
        home=Path(text("NTRADER_HOME") or _default_home(env)).expanduser().absolute(),
        database_url=text("DATABASE_URL"),
        prefect_api_url=text("PREFECT_API_URL"),
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
    """The URL with its password replaced by `***`, even when the password holds an unescaped `@` or `/`."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return "***"
    authority, at, tail = rest.rpartition("@")
    if not at:
        return _mask_query(url)
    user = authority.split(":", 1)[0]
    secret = ":***" if ":" in authority else ""
    return _mask_query(f"{scheme}://{user}{secret}@{tail}")


def _mask_query(url: str) -> str:
    parts = urlsplit(url)
    if "password" not in parts.query.lower():
        return url
    pairs = [
        f"{key}=***" if "password" in key.lower() else f"{key}{sep}{value}"
        for key, sep, value in (pair.partition("=") for pair in parts.query.split("&"))
    ]
    return url.replace(parts.query, "&".join(pairs))


def read_dotenv(path: Path) -> dict[str, str]:
    """The assignments of a `.env` file; a missing file is an empty one. Values are never expanded."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    values = {}
    for number, raw in enumerate(lines, start=1):
        line = raw.strip().removeprefix("export ")
        if not line or line.startswith("#"):
            continue
        name, separator, value = line.partition("=")
        if not separator or not name.strip():
            raise ConfigError(f"{path}, line {number}: expected NAME=value, got {raw.strip()!r}")
        values[name.strip()] = _unquote(value.strip())
    return values


def _unquote(value: str) -> str:
    if len(value) >= 2 and value[0] == value[-1] and value[0] in "'\"":
        return value[1:-1]
    return value.split(" #", 1)[0].rstrip()


def _default_home(env: dict[str, str]) -> str:
    data = env.get("XDG_DATA_HOME") or str(Path(env.get("HOME") or "~").expanduser() / ".local" / "share")
    return str(Path(data) / "ntrader")


def _integer(values: dict[str, str], name: str, default: int, *, minimum: int) -> int:
    raw = values.get(name, "").strip()
    if not raw:
        return default
    try:
        number = int(raw)
    except ValueError:
        raise ConfigError(f"{name} must be a whole number, got {raw!r}") from None
    if number < minimum:
        raise ConfigError(f"{name} must be at least {minimum}, got {number}")
    return number


def _boolean(values: dict[str, str], name: str, default: bool) -> bool:
    raw = values.get(name, "").strip().lower()
    if not raw:
        return default
    if raw in _TRUE | _FALSE:
        return raw in _TRUE
    raise ConfigError(f"{name} must be true or false, got {raw!r}")
