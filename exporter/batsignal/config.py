"""Configuration: one YAML file or the environment becomes one frozen `Config`; all defaults and thresholds live here.

Owns what may be configured, what each key expects (its description is the error message), and where secrets come
from. It opens no connection. Every error is one line that names the file, the key and what was expected; a value of a
secret key is never printed.
"""

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self
from urllib.parse import quote, urlsplit

import psycopg2
import yaml
from psycopg2.extensions import parse_dsn
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator
from pydantic_core import ErrorDetails

from batsignal.errors import ConfigError

APPLICATION_PATTERN = r"^(?P<service>[^@]+)@(?P<version>.+)$"
LISTEN_ADDRESS = "127.0.0.1:9988"

_A_DSN = "a libpq connection string (postgresql://... or key=value pairs)"
_A_NAME = "a name of 1 to 63 characters without spaces or control characters"
_SECRET_KEYS = frozenset({"dsn", "emergency_dsn", "pgbouncer_dsn"})
_VARIABLE = re.compile(r"\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """Every number a detector judges by; docs/detection.md gives the reason for each.

    Times are seconds, ratios 0 to 1. They are not configurable on purpose: a rule that must be tuned per site is a
    rule that cries wolf at the others.
    """

    leak_sessions: int = 8
    leak_idle_seconds: float = 5.0
    leak_first_use_seconds: float = 30.0
    leak_fill_seconds: float = 10.0
    leak_span_seconds: float = 24.0
    leak_moment_seconds: float = 0.75
    leak_critical_exhaustion_seconds: float = 1800.0
    leak_clear_seconds: float = 10.0
    saturation_critical_ratio: float = 0.9
    saturation_warning_ratio: float = 0.8
    saturation_critical_hold_seconds: float = 4.0
    saturation_warning_hold_seconds: float = 30.0
    saturation_clear_ratio: float = 0.05
    saturation_clear_seconds: float = 15.0
    endpoint_failures: int = 3
    endpoint_successes: int = 2
    unreachable_seconds: float = 3.0
    unreachable_looks: int = 2
    unreachable_critical_seconds: float = 30.0


def _pattern(text: str) -> str:
    try:
        groups = re.compile(text).groupindex
    except re.error as exc:
        raise ValueError(str(exc)) from exc
    if "service" not in groups:
        raise ValueError("no group named 'service'")
    return text


def _name(text: str) -> str:
    if not text or len(text) > 63 or not text.isprintable() or any(char.isspace() for char in text):  # noqa: PLR2004 - PostgreSQL's own limit for a name
        raise ValueError("not a name")
    return text


def _url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.port == 0:
        raise ValueError("not a URL")
    return text


def _dsn(secret: SecretStr) -> SecretStr:
    try:
        parse_dsn(secret.get_secret_value())
    except (psycopg2.ProgrammingError, psycopg2.OperationalError):
        # libpq's own message quotes the connection string, and with it the password.
        raise ValueError("libpq cannot read it") from None
    return secret


def _address(text: str) -> str:
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535 or (":" in host and not bracketed):  # noqa: PLR2004 - the largest port
        raise ValueError("not an address")
    return text


Name = Annotated[str, AfterValidator(_name)]
Dsn = Annotated[SecretStr, AfterValidator(_dsn)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class ServerConfig(_Section):
    """One PostgreSQL server to watch."""

    name: Name = Field(description=_A_NAME)
    dsn: Dsn = Field(description=_A_DSN)
    emergency_dsn: Dsn | None = Field(default=None, description=_A_DSN)
    pgbouncer_dsn: Dsn | None = Field(default=None, description=_A_DSN)
    poll_interval_seconds: float = Field(default=1.0, ge=0.2, le=60, description="a number of seconds from 0.2 to 60")
    data_directory: str | None = Field(default=None, description="the path of the server's data directory on this host")


class EndpointConfig(_Section):
    """One health endpoint to probe."""

    name: Name = Field(description=_A_NAME)
    url: Annotated[str, AfterValidator(_url)] = Field(description="an http:// or https:// URL with a host")
    service: Name | None = Field(default=None, description=_A_NAME)
    servers: tuple[Name, ...] | None = Field(
        default=None, min_length=1, strict=False, description="a list of server names"
    )
    interval_seconds: float = Field(default=5.0, ge=0.5, le=3600, description="a number of seconds from 0.5 to 3600")
    timeout_seconds: float = Field(default=2.0, ge=0.1, le=60, description="a number of seconds from 0.1 to 60")

    @property
    def service_name(self) -> str:
        return self.service or self.name


class WebConfig(_Section):
    """Where the daemon listens."""

    listen_address: Annotated[str, AfterValidator(_address)] = Field(
        default=LISTEN_ADDRESS, description="HOST:PORT, [IPV6]:PORT or :PORT"
    )
    deploy_token_file: str | None = Field(default=None, description="the path of a file with the token")


class StoreConfig(_Section):
    """Where history will be kept; read and checked, and used from the release that keeps history."""

    path: str = Field(default="batsignal.db", min_length=1, description="the path of a file")
    keep_days: int = Field(default=14, ge=1, le=3650, description="a whole number of days from 1 to 3650")


class MetricsConfig(_Section):
    """How many names keep a series of their own before the rest share `other`."""

    top_names: int = Field(default=100, ge=1, le=2000, description="a whole number from 1 to 2000")


class Config(_Section):
    """The whole configuration, checked."""

    servers: tuple[ServerConfig, ...] = Field(
        min_length=1, strict=False, description="a list of at least one server, each with name and dsn"
    )
    endpoints: tuple[EndpointConfig, ...] = Field(
        default=(), strict=False, description="a list of endpoints, each with name and url"
    )
    application_pattern: Annotated[str, AfterValidator(_pattern)] = Field(
        default=APPLICATION_PATTERN, description="a regular expression with a group named 'service'"
    )
    web: WebConfig = Field(default=WebConfig(), description="a mapping with listen_address")
    store: StoreConfig = Field(default=StoreConfig(), description="a mapping with path and keep_days")
    metrics: MetricsConfig = Field(default=MetricsConfig(), description="a mapping with top_names")

    @model_validator(mode="after")
    def _names_are_known_and_unique(self) -> Self:
        servers = [server.name for server in self.servers]
        _refuse_twice("servers", servers)
        _refuse_twice("endpoints", [endpoint.name for endpoint in self.endpoints])
        for index, endpoint in enumerate(self.endpoints):
            for name in endpoint.servers or ():
                if name not in servers:
                    raise ValueError(
                        f"endpoints[{index}].servers: expected names from servers ({', '.join(servers)}), got {name!r}"
                    )
        return self


def _refuse_twice(section: str, names: list[str]) -> None:
    for index, name in enumerate(names):
        if name in names[:index]:
            raise ValueError(
                f"{section}[{index}].name: expected a name of its own, got {name!r},"
                f" which {section}[{names.index(name)}] has already"
            )


class _StrictLoader(yaml.SafeLoader):
    """YAML's safe loader, less its habit of letting the last of two equal keys win in silence."""


def _unique_mapping(loader: _StrictLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if isinstance(key, str) and key in seen and key != "<<":
            raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} stands twice", key_node.start_mark)
        if isinstance(key, str):
            seen.add(key)
    return loader.construct_mapping(node, deep=True)


_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique_mapping)


def load(file: str | None, environment: Mapping[str, str]) -> Config:
    """Return the configuration of `file`, or of the environment when no file is given.

    Raises ConfigError with one line that names the file, the key and what was expected.
    """
    if file is not None:
        return read_file(Path(file), environment)
    return from_environment(environment)


def read_file(path: Path, environment: Mapping[str, str]) -> Config:
    """Return the configuration in a YAML file; `${NAME}` in a connection string is taken from the environment."""
    try:
        # utf-8-sig: editors on some systems put a byte order mark first.
        text = path.read_text(encoding="utf-8-sig")
    except OSError as exc:
        raise ConfigError(f"{path}: cannot be read: {exc.strerror or exc}") from exc
    except UnicodeDecodeError as exc:
        raise ConfigError(f"{path}: expected a text file in UTF-8, got other bytes at offset {exc.start}") from exc
    try:
        content = yaml.load(text, Loader=_StrictLoader)  # noqa: S506 - a subclass of SafeLoader
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        where = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        raise ConfigError(f"{path}{where}: expected valid YAML: {exc.problem or exc.context}") from exc
    except (yaml.YAMLError, RecursionError, ValueError) as exc:
        raise ConfigError(f"{path}: expected valid YAML: {str(exc).splitlines()[0]}") from exc
    if content is None:
        content = {}
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected a mapping with the key servers, got {_spell(content)}")
    return _validate(str(path), _with_secrets(str(path), path.parent, content, environment))


def from_environment(environment: Mapping[str, str]) -> Config:
    """Return a configuration of one server, named by DATA_SOURCE_* as postgres_exporter reads them, else by PG*."""
    dsn = _data_source(environment)
    source = "DATA_SOURCE_NAME"
    if dsn is None:
        if not any(environment.get(key) for key in ("PGHOST", "PGHOSTADDR", "PGSERVICE", "PGDATABASE", "PGUSER")):
            raise ConfigError(
                "no configuration: expected --config.file FILE, or DATA_SOURCE_NAME, or libpq's PG* variables"
                " (PGHOST, PGUSER, ...) in the environment"
            )
        dsn, source = "", "PG*"
    content = {"servers": [{"name": _server_name(dsn, environment), "dsn": dsn}]}
    return _validate(f"environment ({source})", content)


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
    except (psycopg2.ProgrammingError, psycopg2.OperationalError):
        return "unreadable"  # the validation of `dsn` says it properly
    host = parts.get("host") or parts.get("hostaddr") or environment.get("PGHOST") or "localhost"
    port = parts.get("port") or environment.get("PGPORT") or "5432"
    return re.sub(r"[^\x21-\x7e]", "_", f"{host}:{port}")[:63]


def _with_secrets(source: str, folder: Path, content: dict[Any, Any], environment: Mapping[str, str]) -> dict[Any, Any]:
    """Put the content of `*_file` keys and `${NAME}` variables where the secrets belong."""
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


def _server_with_secrets(
    where: str, folder: Path, server: dict[Any, Any], environment: Mapping[str, str]
) -> dict[Any, Any]:
    server = dict(server)
    for key in _SECRET_KEYS:
        file_key = f"{key}_file"
        if file_key in server:
            file = server.pop(file_key)
            if key in server:
                raise ConfigError(f"{where}.{file_key}: expected either {key} or {file_key}, got both")
            if not isinstance(file, str):
                raise ConfigError(f"{where}.{file_key}: expected the path of a file, got {_spell(file)}")
            server[key] = _read_secret(f"{where}.{file_key}", folder / file)
        if isinstance(server.get(key), str):
            server[key] = _fill(f"{where}.{key}", server[key], environment)
    return server


def _read_secret(where: str, path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "not a text file in UTF-8"
        raise ConfigError(f"{where}: expected a readable file, got {str(path)!r}: {reason}") from exc


def _fill(where: str, text: str, environment: Mapping[str, str]) -> str:
    def value(match: re.Match[str]) -> str:
        name = match["name"]
        if name not in environment:
            raise ConfigError(f"{where}: expected the environment variable {name} to be set")
        return environment[name]

    return _VARIABLE.sub(value, text)


def _validate(source: str, content: dict[Any, Any]) -> Config:
    try:
        return Config.model_validate(content)
    except ValidationError as exc:
        # An unknown key explains a missing one: say it first.
        errors = sorted(exc.errors(), key=lambda error: error["type"] != "extra_forbidden")
        raise ConfigError(f"{source}: {_explain(errors[0])}") from None


def _explain(error: ErrorDetails) -> str:
    location = error["loc"]
    if error["type"] == "value_error" and not location:
        return str(error["ctx"]["error"])
    path = _path(location)
    if error["type"] in {"extra_forbidden", "invalid_key"}:
        return f"{path}: unknown key; expected {_known_keys(location)}"
    expected = _expected(location)
    if error["type"] == "missing":
        return f"{path}: missing; expected {expected}"
    got = "something else" if location[-1] in _SECRET_KEYS else _spell(error["input"])
    return f"{path}: expected {expected}, got {got}"


def _path(location: tuple[int | str, ...]) -> str:
    """Spell a location as people write it.

    >>> _path(("servers", 0, "dsn"))
    'servers[0].dsn'
    """
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


_MODELS: Mapping[str, type[BaseModel]] = {
    "servers": ServerConfig,
    "endpoints": EndpointConfig,
    "web": WebConfig,
    "store": StoreConfig,
    "metrics": MetricsConfig,
}


def _model_at(location: tuple[int | str, ...]) -> type[BaseModel]:
    return _MODELS.get(str(location[0]), Config) if len(location) > 1 else Config


def _known_keys(location: tuple[int | str, ...]) -> str:
    known = list(_model_at(location).model_fields)
    if _model_at(location) is ServerConfig:
        known += [f"{key}_file" for key in known if key in _SECRET_KEYS]
    near = difflib.get_close_matches(str(location[-1]), known, n=1)
    return f"{near[0]} (did you mean that?)" if near else f"one of {', '.join(known)}"


def _expected(location: tuple[int | str, ...]) -> str:
    names = [part for part in location if isinstance(part, str)]
    if isinstance(location[-1], int) and len(names) == 1:
        fields = ", ".join(name for name, field in _MODELS[names[0]].model_fields.items() if field.is_required())
        return f"a mapping with {fields}"
    field = _model_at(location if len(names) > 1 else location[:1]).model_fields.get(names[-1])
    return (field.description if field else None) or "something else"


def _spell(value: object) -> str:
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list" if value else "an empty list"
    if value is None:
        return "nothing"
    text = repr(value)
    if "://" in text and "@" in text:
        return "something else"  # a URL with a password in the wrong place
    return text if len(text) <= 60 else text[:57] + "..."  # noqa: PLR2004 - one line stays one line
