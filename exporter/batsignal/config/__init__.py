"""Configuration: one YAML file or the environment becomes one frozen `Config`; all defaults and thresholds live here.

Owns what may be configured and what each key expects: its description is the error message. Where it is written down
is `source`'s affair, how an error is put `wording`'s. It opens no connection, and prints no secret.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Secret, ValidationError, model_validator

from batsignal.config.dsn import fault as fault_in
from batsignal.config.source import SECRET_KEYS, TOKEN_FILE_KEYS, from_environment, from_file, read_token
from batsignal.config.wording import MisfitError, explained
from batsignal.errors import ConfigError
from batsignal.pattern_cost import costly_name

APPLICATION_PATTERN = r"^(?P<service>[^@]+)@(?P<version>.+)$"
LISTEN_ADDRESS = "127.0.0.1:9988"

_A_DSN = "a libpq connection string (postgresql://... or key=value pairs)"
_A_NAME = "a name of 1 to 63 characters without spaces or control characters"


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
    unreachable_critical_seconds: float = 45.0


class SecretText(Secret[str]):
    """A text that prints as `******`, in a repr, a log or a traceback."""

    def _display(self) -> str:
        return "******" if self.get_secret_value() else ""


# What a validator says stands behind the description of its field: nothing, where that has said it all.


def _pattern(text: str) -> str:
    try:
        groups = re.compile(text).groupindex
    except re.error as exc:
        raise ValueError(str(exc)) from exc
    if "service" not in groups:
        raise ValueError("no group has that name")
    if text != APPLICATION_PATTERN and (name := costly_name(text)) is not None:
        raise ValueError(f"it takes too long on a name such as {name!r}")
    return text


def _name(text: str) -> str:
    if not text or len(text) > 63 or not text.isprintable() or any(char.isspace() for char in text):  # noqa: PLR2004 - PostgreSQL's own limit for a name
        raise ValueError
    return text


def _path(text: str) -> str:
    # ValueError by itself: a character that no file system has.
    if b"\0" in os.fsencode(text):
        raise ValueError("no path has a zero byte in it")
    return text


def _url(text: str) -> str:
    # ValueError by itself: a port that is no number or too large, a bracket that is not closed.
    parts = urlsplit(text)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.port == 0:
        raise ValueError
    return text


def _dsn(secret: SecretText) -> SecretText:
    fault = fault_in(secret.get_secret_value())
    if fault is not None:
        raise ValueError(fault)
    return secret


def _address(text: str) -> str:
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535 or (":" in host and not bracketed):  # noqa: PLR2004 - the largest port
        raise ValueError
    return text


Name = Annotated[str, AfterValidator(_name)]
FilePath = Annotated[str, AfterValidator(_path)]
Dsn = Annotated[SecretText, AfterValidator(_dsn)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class ServerConfig(_Section):
    """One PostgreSQL server to watch."""

    name: Name = Field(description=_A_NAME)
    dsn: Dsn = Field(description=_A_DSN)
    emergency_dsn: Dsn | None = Field(default=None, description=_A_DSN)
    pgbouncer_dsn: Dsn | None = Field(default=None, description=_A_DSN)
    poll_interval_seconds: float = Field(default=1.0, ge=0.2, le=60, description="a number of seconds from 0.2 to 60")
    data_directory: FilePath | None = Field(
        default=None, description="the path of the server's data directory on this host"
    )


class EndpointConfig(_Section):
    """One health endpoint to probe."""

    name: Name = Field(description=_A_NAME)
    url: Annotated[str, AfterValidator(_url)] = Field(
        repr=False,  # a login or a token may stand in it
        description="an http:// or https:// URL with a host",
    )
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
    """Where the daemon listens, who may tell it of deploys, and who may have sessions ended."""

    listen_address: Annotated[str, AfterValidator(_address)] = Field(
        default=LISTEN_ADDRESS, description="HOST:PORT, [IPV6]:PORT or :PORT"
    )
    deploy_token_file: str | None = Field(default=None, min_length=1, description="the path of a file with the token")
    release_token_file: str | None = Field(default=None, min_length=1, description="the path of a file with the token")

    def deploy_token(self) -> SecretText | None:
        """Read the token of who may tell of deploys anew; None when no file is named. Raises ConfigError."""
        return None if self.deploy_token_file is None else SecretText(read_token(self.deploy_token_file))

    def release_token(self) -> SecretText | None:
        """Read the token of who may have sessions ended anew; None when no file is named. Raises ConfigError."""
        file = self.release_token_file
        return None if file is None else SecretText(read_token(file, "release_token_file"))


class StoreConfig(_Section):
    """Where history is kept, and how long. `path` is taken from the working directory; null keeps nothing."""

    path: FilePath | None = Field(default="batsignal.db", min_length=1, description="the path of a file, or null")
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
                    raise MisfitError(
                        ("endpoints", index, "servers"),
                        f"endpoints[{index}].servers: expected names from servers ({', '.join(servers)}), got {name!r}",
                    )
        return self


def _refuse_twice(section: str, names: list[str]) -> None:
    for index, name in enumerate(names):
        if name in names[:index]:
            raise MisfitError(
                (section, index, "name"),
                f"{section}[{index}].name: expected a name of its own, got {name!r},"
                f" which {section}[{names.index(name)}] has already",
            )


def load(file: str | None, environment: Mapping[str, str]) -> Config:
    """Return the configuration of `file`, or of the environment when no file is given.

    Raises ConfigError with one line that names the file and its line, the key and what was expected.
    """
    source = from_environment(environment) if file is None else from_file(Path(file), environment)
    try:
        config = Config.model_validate(source.content)
    except ValidationError as exc:
        # `from None`: the library's own text quotes the values, secrets among them.
        location, text = explained(exc.errors(), Config, SECRET_KEYS)
        raise ConfigError(f"{source.place(location)}: {text}") from None
    for key, token in zip(TOKEN_FILE_KEYS, (config.web.deploy_token, config.web.release_token), strict=True):
        try:
            token()
        except ConfigError as exc:
            raise ConfigError(f"{source.place(('web', key))}: {exc}") from exc
    return config
