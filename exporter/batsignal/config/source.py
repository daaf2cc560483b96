"""Where a configuration is written down, a YAML file or the environment, read into plain values with secrets filled in.

Owns the YAML (strict: a key that stands twice is an error), the environment variables, and the files and variables
that secrets come from. It does not know what may be configured: `config` checks that. Every error is one line that
names the file or the variable and what was expected; the content of a secret is never in it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg2
import yaml
from psycopg2.extensions import parse_dsn

from batsignal import small_file
from batsignal.config.dsn import are_ports
from batsignal.config.wording import is_no_path, spelled
from batsignal.errors import ConfigError

SECRET_KEYS = ("dsn", "emergency_dsn", "pgbouncer_dsn")
TOKEN_FILE_KEYS = ("deploy_token_file", "release_token_file")

_VARIABLE = re.compile(r"\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)\}")
_MERGED_KEYS_MOST = 10_000
# Any of these says that somebody means a server; PGPASSWORD and its like do not.
_NAMING_A_SERVER = ("PGHOST", "PGHOSTADDR", "PGPORT", "PGSERVICE", "PGDATABASE", "PGUSER")


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What was read, and what to call its place in an error."""

    name: str
    content: dict[Any, Any] = field(repr=False)


class _StrictLoader(yaml.SafeLoader):
    """YAML's safe loader, less its habit of letting the last of two equal keys win in silence.

    Merges (`<<`) are bounded, too: some that nest make millions of keys out of ten lines.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._merge_depth = 0
        self._merged_keys = 0

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Put into a mapping what it merges; the library calls this anew for each that is merged into another."""
        self._merge_depth += 1
        super().flatten_mapping(node)
        self._merge_depth -= 1
        if self._merge_depth:
            self._merged_keys += len(node.value)
        if self._merged_keys > _MERGED_KEYS_MOST:
            problem = f"its merges (<<) come to more than {_MERGED_KEYS_MOST} keys"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


def _unique_mapping(loader: _StrictLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        if key_node.tag == "tag:yaml.org,2002:merge":  # `<<`, which construct_mapping resolves
            continue
        key = loader.construct_object(key_node, deep=True)
        if isinstance(key, str) and key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} stands twice", key_node.start_mark)
        if isinstance(key, str):
            seen.add(key)
    return loader.construct_mapping(node, deep=True)


_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique_mapping)


def from_file(path: Path, environment: Mapping[str, str]) -> Source:
    """Return what a YAML file says; `${NAME}` in a connection string is taken from the environment.

    Raises ConfigError.
    """
    content = read_mapping(path, "the key servers")
    return Source(name=str(path), content=_with_secrets(str(path), path.parent, content, environment))


def read_mapping(path: Path, keys: str) -> dict[Any, Any]:
    """Return what a YAML file says, an empty one nothing; `keys` are named where it is no mapping.

    Raises ConfigError.
    """
    content = _yaml(path, _text(path))
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected a mapping with {keys}, got {spelled(content)}")
    return content


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


def _text(path: Path) -> str:
    try:
        # utf-8-sig: editors on some systems put a byte order mark first.
        return small_file.read(path).decode("utf-8-sig")
    except OSError as exc:
        raise ConfigError(f"{path}: cannot be read: {exc.strerror or exc}") from exc
    except UnicodeDecodeError as exc:
        raise ConfigError(f"{path}: expected a text file in UTF-8, got other bytes at offset {exc.start}") from exc


def _yaml(path: Path, text: str) -> Any:
    try:
        return yaml.load(text, Loader=_StrictLoader)  # noqa: S506 - a subclass of SafeLoader
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        where = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        raise ConfigError(f"{path}{where}: expected valid YAML: {exc.problem or exc.context}") from exc
    except RecursionError as exc:
        raise ConfigError(f"{path}: expected valid YAML: nested too deeply") from exc
    except (yaml.YAMLError, ValueError) as exc:
        raise ConfigError(f"{path}: expected valid YAML: {str(exc).partition(chr(10))[0]}") from exc


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


def _with_secrets(source: str, folder: Path, content: dict[Any, Any], environment: Mapping[str, str]) -> dict[Any, Any]:
    """Put the content of `*_file` keys and `${NAME}` variables where the secrets belong."""
    web = content.get("web")
    if isinstance(web, dict):
        # Taken from the config's own folder, as the files of other secrets are.
        files = {key: str(folder / web[key]) for key in TOKEN_FILE_KEYS if isinstance(web.get(key), str)}
        content = content | {"web": web | files}
    servers = content.get("servers")
    if not isinstance(servers, list):
        return content
    filled = [
        _server_with_secrets(f"{source}: servers[{index}]", folder, server, environment)
        if isinstance(server, dict)
        else server
        for index, server in enumerate(servers)
    ]
    return content | {"servers": filled}


def read_token(path: str, key: str = TOKEN_FILE_KEYS[0]) -> str:
    """Return the token in a file; raises ConfigError that names `key`, also for one that is empty."""
    token = _read_secret(f"web.{key}", Path(path))
    if not token or not token.isprintable() or not token.isascii() or " " in token:
        raise ConfigError(f"web.{key}: expected one line of printable ASCII without spaces in {path!r}")
    return token


def _server_with_secrets(
    where: str, folder: Path, server: dict[Any, Any], environment: Mapping[str, str]
) -> dict[Any, Any]:
    server = dict(server)
    for key in SECRET_KEYS:
        file_key = f"{key}_file"
        if file_key in server:
            file = server.pop(file_key)
            if key in server:
                raise ConfigError(f"{where}.{file_key}: expected either {key} or {file_key}, got both")
            if not isinstance(file, str):
                raise ConfigError(f"{where}.{file_key}: expected the path of a file, got {spelled(file)}")
            server[key] = _read_secret(f"{where}.{file_key}", folder / file)
            if not server[key]:  # libpq would go to the server of this host, whichever that is
                raise ConfigError(f"{where}.{file_key}: expected a connection string, got an empty file, {file!r}")
        if isinstance(server.get(key), str):
            filled = _fill(f"{where}.{key}", server[key], environment)
            if not filled.strip():  # as above
                unset = "" if filled == server[key] else ": the environment variable is empty"
                raise ConfigError(f"{where}.{key}: expected a connection string, got an empty text{unset}")
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
