"""Where a configuration comes from, a YAML file or the environment, read into plain values with secrets filled in.

Owns the environment variables, and the files and variables that secrets come from; the YAML is `written`'s affair. It
does not know what may be configured: `config` checks that. Every error is one line that names the file and line, or the
variable, and what was expected; the content of a secret is never in it.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg2
from psycopg2.extensions import parse_dsn

from batsignal import small_file
from batsignal.config.dsn import are_ports
from batsignal.config.wording import is_no_path, spelled
from batsignal.config.written import Source, read_mapping
from batsignal.errors import ConfigError

SECRET_KEYS = ("dsn", "emergency_dsn", "pgbouncer_dsn")
TOKEN_FILE_KEYS = ("deploy_token_file", "release_token_file")

_VARIABLE = re.compile(r"\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)\}")
# Any of these says that somebody means a server; PGPASSWORD and its like do not.
_NAMING_A_SERVER = ("PGHOST", "PGHOSTADDR", "PGPORT", "PGSERVICE", "PGDATABASE", "PGUSER")


def from_file(path: Path, environment: Mapping[str, str]) -> Source:
    """Return what a YAML file says; `${NAME}` in a connection string is taken from the environment.

    Raises ConfigError.
    """
    source = read_mapping(path, "the key servers")
    return replace(source, content=_with_secrets(source, path.parent, environment))


def from_environment(environment: Mapping[str, str]) -> Source:
    """Return one server, named by DATA_SOURCE_* as postgres_exporter reads them, else by libpq's own PG*.

    Raises ConfigError, also when neither is there.
    """
    dsn = _data_source(environment)
    name = "DATA_SOURCE_NAME" if environment.get("DATA_SOURCE_NAME") else "DATA_SOURCE_URI"
    if dsn is None:
        if not any(environment.get(key) for key in _NAMING_A_SERVER):
            raise ConfigError(
                "no configuration: expected --config.file FILE, or DATA_SOURCE_NAME, or libpq's PG* variables"
                " (PGHOST, PGUSER, ...) in the environment"
            )
        dsn, name = "", "PG*"
    if not are_ports(environment.get("PGPORT", "")):
        raise ConfigError("environment (PGPORT): expected a number from 1 to 65535")
    # libpq would take the second for a part of the first's database name, and the server would say it aloud.
    if dsn.count("://") > 1:
        raise ConfigError(
            f"environment ({name}): expected one connection string, got several;"
            " name several servers in a file: --config.file FILE"
        )
    server = {"name": _server_name(dsn, environment), "dsn": dsn}
    return Source(name=f"environment ({name})", content={"servers": [server]})


def _data_source(environment: Mapping[str, str]) -> str | None:
    if name := environment.get("DATA_SOURCE_NAME"):
        return name
    uri = _value_or_file(environment, "DATA_SOURCE_URI")
    if uri is None:
        return None
    user = _value_or_file(environment, "DATA_SOURCE_USER") or ""
    password = _value_or_file(environment, "DATA_SOURCE_PASS") or ""
    login = f"{quote(user, safe='')}:{quote(password, safe='')}@" if user else ""
    return f"postgresql://{login}{uri}"


def _value_or_file(environment: Mapping[str, str], key: str) -> str | None:
    if file := environment.get(f"{key}_FILE"):
        return _read_secret(f"environment ({key}_FILE)", Path(file))
    return environment.get(key) or None


def _server_name(dsn: str, environment: Mapping[str, str]) -> str:
    try:
        parts = parse_dsn(dsn) if dsn else {}
    except (psycopg2.ProgrammingError, psycopg2.OperationalError, UnicodeError):
        return "unreadable"  # the validation of `dsn` says it properly
    host = parts.get("host") or parts.get("hostaddr") or environment.get("PGHOST") or environment.get("PGHOSTADDR")
    port = parts.get("port") or environment.get("PGPORT") or "5432"
    return re.sub(r"[^\x21-\x7e]", "_", f"{host or 'localhost'}:{port}")[:63]


def _with_secrets(source: Source, folder: Path, environment: Mapping[str, str]) -> dict[Any, Any]:
    """Put the content of `*_file` keys and `${NAME}` variables where the secrets belong."""
    content = source.content
    web = content.get("web")
    if isinstance(web, dict):
        # Taken from the config's own folder, as the files of other secrets are.
        files = {key: str(folder / web[key]) for key in TOKEN_FILE_KEYS if isinstance(web.get(key), str)}
        content = content | {"web": web | files}
    servers = content.get("servers")
    if not isinstance(servers, list):
        return content
    filled = [
        _server_with_secrets(partial(_where, source, index), folder, server, environment)
        if isinstance(server, dict)
        else server
        for index, server in enumerate(servers)
    ]
    return content | {"servers": filled}


def _where(source: Source, index: int, key: str) -> str:
    return f"{source.place(('servers', index, key))}: servers[{index}].{key}"


def read_token(path: str, key: str = TOKEN_FILE_KEYS[0]) -> str:
    """Return the token in a file; raises ConfigError that names `key`, also for one that is empty."""
    token = _read_secret(f"web.{key}", Path(path))
    if not token or not token.isprintable() or not token.isascii() or " " in token:
        raise ConfigError(f"web.{key}: expected one line of printable ASCII without spaces in {path!r}")
    return token


def _server_with_secrets(
    where: Callable[[str], str], folder: Path, server: dict[Any, Any], environment: Mapping[str, str]
) -> dict[Any, Any]:
    """Return a server with its secrets in it; `where` says what to call a key of it in an error."""
    server = dict(server)
    for key in SECRET_KEYS:
        file_key = f"{key}_file"
        if file_key in server:
            file = server.pop(file_key)
            if key in server:
                raise ConfigError(f"{where(file_key)}: expected either {key} or {file_key}, got both")
            if not isinstance(file, str):
                raise ConfigError(f"{where(file_key)}: expected the path of a file, got {spelled(file)}")
            server[key] = _read_secret(where(file_key), folder / file)
            if not server[key]:  # libpq would go to the server of this host, whichever that is
                raise ConfigError(f"{where(file_key)}: expected a connection string, got an empty file, {file!r}")
        if isinstance(server.get(key), str):
            filled = _fill(where(key), server[key], environment)
            if not filled.strip():  # as above
                unset = "" if filled == server[key] else ": the environment variable is empty"
                raise ConfigError(f"{where(key)}: expected a connection string, got an empty text{unset}")
            server[key] = filled
    return server


def _read_secret(where: str, path: Path) -> str:
    try:
        return small_file.read(path).decode("utf-8").strip()
    except UnicodeDecodeError as exc:
        raise ConfigError(f"{where}: expected a text file in UTF-8, got other bytes in {str(path)!r}") from exc
    # ValueError: a path with a zero byte in it.
    except (OSError, ValueError) as exc:
        if is_no_path(str(path)):  # with a password in it, most likely
            raise ConfigError(
                f"{where}: expected the path of a file, got what looks like a connection string or a file's content"
            ) from None
        reason = (isinstance(exc, OSError) and exc.strerror) or str(exc)
        raise ConfigError(f"{where}: expected a readable file, got {str(path)!r}: {reason}") from exc


def _fill(where: str, text: str, environment: Mapping[str, str]) -> str:
    def value(match: re.Match[str]) -> str:
        name = match["name"]
        if name not in environment:
            raise ConfigError(f"{where}: expected the environment variable {name} to be set")
        return environment[name]

    return _VARIABLE.sub(value, text)
