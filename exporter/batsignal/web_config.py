"""The file of `--web.config.file`: who may ask the endpoint, and how it is encrypted.

It has the format of the Prometheus exporter toolkit, so that one file serves all exporters of a host.

Owns the file's keys, what each expects, and the reading of the files that it names (relative to itself). It opens no
socket and builds no TLS context: `expose.tls` does. A hash, a key or a password is never spelled in an error. The
format: https://github.com/prometheus/exporter-toolkit/blob/master/docs/web-configuration.md
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from batsignal.config import SecretText
from batsignal.config.wording import MisfitError, explained
from batsignal.config.written import Source, read_mapping
from batsignal.errors import ConfigError

ClientAuth = Literal[
    "NoClientCert",
    "RequestClientCert",
    "RequireAnyClientCert",
    "RequireClientCert",  # the toolkit's older name of the one above
    "VerifyClientCertIfGiven",
    "RequireAndVerifyClientCert",
]
CLIENT_AUTH_TYPES = tuple(kind for kind in get_args(ClientAuth) if kind != "RequireClientCert")
TlsVersion = Literal["TLS10", "TLS11", "TLS12", "TLS13"]
TLS_VERSIONS: tuple[TlsVersion, ...] = ("TLS10", "TLS11", "TLS12", "TLS13")
CURVES = {"CurveP256": "prime256v1", "CurveP384": "secp384r1", "CurveP521": "secp521r1", "X25519": "X25519"}
"""Go's names of curves, and OpenSSL's."""
CIPHERS_OF_TLS13 = ("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256")
"""Named for completeness: neither Go nor OpenSSL lets anybody choose among them."""
CIPHERS = {
    f"TLS_ECDHE_{kind}_WITH_{go}": f"ECDHE-{kind}-{openssl}"
    for kind in ("ECDSA", "RSA")
    for go, openssl in (
        ("AES_128_CBC_SHA", "AES128-SHA"),
        ("AES_256_CBC_SHA", "AES256-SHA"),
        ("AES_128_GCM_SHA256", "AES128-GCM-SHA256"),
        ("AES_256_GCM_SHA384", "AES256-GCM-SHA384"),
        ("CHACHA20_POLY1305_SHA256", "CHACHA20-POLY1305"),
    )
}
"""Go's names of the cipher suites up to TLS 1.2, and OpenSSL's."""
HEADERS: Mapping[str, tuple[str, ...]] = {
    "Content-Security-Policy": (),
    "X-Frame-Options": ("deny", "sameorigin"),
    "X-Content-Type-Options": ("nosniff",),
    "X-XSS-Protection": (),
    "Strict-Transport-Security": (),
}
"""The headers that may be set, each with the values that it may have (none: any)."""

_HASH = re.compile(r"\$2[abxy]\$(?P<cost>[0-9]{2})\$[./A-Za-z0-9]{53}")
_COST_LEAST, _COST_MOST = 4, 31
_DURATION = re.compile(
    r"(?:(?P<hours>[0-9.]+)h)?(?:(?P<minutes>[0-9.]+)m(?!s))?(?:(?P<seconds>[0-9.]+)s)?(?:(?P<ms>[0-9.]+)ms)?"
)
_SECRETS = ("key", "basic_auth_users")
_FILES = ("cert_file", "key_file", "client_ca_file")

_A_PEM = "a text in PEM"
_A_FILE = "the path of a file in PEM"


def _nothing_for_blank(value: object) -> object:
    return None if value == "" else value


def _seconds(value: object) -> object:
    """Read a duration as Go spells it: `500ms`, `1m30s`, `0`."""
    if isinstance(value, int | float) and not isinstance(value, bool) and value == 0:
        return 0.0
    match = _DURATION.fullmatch(value) if isinstance(value, str) and value else None
    if match is None:
        return value
    try:
        hours, minutes, seconds, milliseconds = (float(part or 0) for part in match.groups())
    except ValueError:
        return value
    return hours * 3600 + minutes * 60 + seconds + milliseconds / 1000


def _keys_as_text(value: object) -> object:
    """Take a user's name that YAML read as a number for the text that it was, as the toolkit does."""
    if not isinstance(value, dict):
        return value
    return {str(key) if type(key) is int else key: one for key, one in value.items()}


def _hashes_as_text(value: object) -> object:
    """Take users and what stands for their hashes as texts.

    A number or nothing is no hash, which is said without spelling it: it may be a password.
    """
    named = _keys_as_text(value)
    if not isinstance(named, dict):
        return named
    return {
        user: "" if one is None else str(one) if isinstance(one, int | float) else one for user, one in named.items()
    }


Blankable = Annotated[str | None, BeforeValidator(_nothing_for_blank)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class TlsServerConfig(_Section):
    """How the endpoint is encrypted, and which client certificates it wants. Paths are whole by now."""

    cert: Blankable = Field(default=None, description=_A_PEM)
    key: Annotated[SecretText | None, BeforeValidator(_nothing_for_blank)] = Field(default=None, description=_A_PEM)
    client_ca: Blankable = Field(default=None, description=_A_PEM)
    cert_file: Blankable = Field(default=None, description=_A_FILE)
    key_file: Blankable = Field(default=None, description=_A_FILE)
    client_ca_file: Blankable = Field(default=None, description=_A_FILE)
    client_auth_type: Annotated[ClientAuth | None, BeforeValidator(_nothing_for_blank)] = Field(
        default=None,
        description=f"one of {', '.join(CLIENT_AUTH_TYPES)}",
    )
    client_allowed_sans: tuple[str, ...] | None = Field(
        default=None, strict=False, description="a list of names, addresses or URIs"
    )
    min_version: TlsVersion = Field(default="TLS12", description=" or ".join(TLS_VERSIONS))
    max_version: TlsVersion = Field(default="TLS13", description=" or ".join(TLS_VERSIONS))
    cipher_suites: tuple[str, ...] | None = Field(
        default=None, strict=False, description="a list of Go's names of cipher suites"
    )
    prefer_server_cipher_suites: bool = Field(default=True, description="true or false")
    curve_preferences: tuple[str, ...] | None = Field(
        default=None, strict=False, description=f"a list of {', '.join(CURVES)}"
    )

    @property
    def is_wanted(self) -> bool:
        """Whether anything of it asks for TLS."""
        given = (self.cert, self.key, self.cert_file, self.key_file, self.client_ca, self.client_ca_file)
        return any(given) or self.client_auth_type is not None

    def fault(self) -> str | None:
        """Return what is wrong with the keys together, the key's name first; None when nothing is."""
        for one, other in (("cert", "cert_file"), ("key", "key_file"), ("client_ca", "client_ca_file")):
            if getattr(self, one) and getattr(self, other):
                return f"{other}: expected either {one} or {other}, got both"
            if self.is_wanted and not one.startswith("client") and not getattr(self, one) and not getattr(self, other):
                return f"{other}: missing; expected {one} or {other}"
        if TLS_VERSIONS.index(self.min_version) > TLS_VERSIONS.index(self.max_version):
            return f"max_version: expected {self.min_version} (the min_version) or later, got {self.max_version}"
        return (
            _stranger("cipher_suites", self.cipher_suites, (*CIPHERS, *CIPHERS_OF_TLS13))
            or _stranger("curve_preferences", self.curve_preferences, tuple(CURVES))
            or (self._fault_of_clients() if self.is_wanted else None)
        )

    def _fault_of_clients(self) -> str | None:
        kind = self.client_auth_type or "NoClientCert"
        has_ca = bool(self.client_ca or self.client_ca_file)
        if has_ca and kind == "NoClientCert":
            return (
                "client_auth_type: expected RequireAndVerifyClientCert where client_ca_file is given, got NoClientCert"
            )
        if not has_ca and kind in {"VerifyClientCertIfGiven", "RequireAndVerifyClientCert"}:
            return f"client_ca_file: missing; expected client_ca or client_ca_file for {kind}"
        if not has_ca and kind in {"RequireAnyClientCert", "RequireClientCert"}:
            # Python's TLS can ask for a certificate only to verify it.
            return (
                "client_auth_type: expected RequireAndVerifyClientCert with client_ca_file: a certificate that nobody"
                f" verifies ({kind}) proves nothing, and cannot be asked for here"
            )
        if self.client_allowed_sans is not None and kind not in {
            *("RequireAnyClientCert", "RequireClientCert", "RequireAndVerifyClientCert"),
        }:
            return f"client_allowed_sans: expected with client_auth_type RequireAndVerifyClientCert, got {kind}"
        return None


def _stranger(key: str, given: tuple[str, ...] | None, known: tuple[str, ...]) -> str | None:
    for one in given or ():
        if one not in known:
            return f"{key}: expected some of {', '.join(known)}, got {one[:60]!r}"
    return None


class HttpServerConfig(_Section):
    """What is said of HTTP. HTTP/1.1 is all that is spoken, whatever `http2` says: clients fall back to it."""

    http2: bool = Field(default=True, description="true or false")
    headers: Annotated[dict[str, str | None] | None, BeforeValidator(_keys_as_text)] = Field(
        default=None, description=f"a mapping with some of {', '.join(HEADERS)}"
    )

    def fault(self) -> str | None:
        for name, value in (self.headers or {}).items():
            if name not in HEADERS:
                return f"headers.{name[:60]!r}: unknown key; expected one of {', '.join(HEADERS)}"
            if not value:
                continue
            if HEADERS[name] and value not in HEADERS[name]:
                return f"headers.{name}: expected {' or '.join(HEADERS[name])}, got {value[:60]!r}"
            if not value.isascii() or not value.isprintable():
                return f"headers.{name}: expected printable ASCII, got {value[:60]!r}"
        return None


class RateLimitConfig(_Section):
    """At most `burst` requests at once, and one more each `interval` seconds; 0 is no limit."""

    interval: Annotated[float, BeforeValidator(_seconds)] = Field(
        default=0.0, ge=0, allow_inf_nan=False, description="a duration such as 500ms, 1s or 1m30s"
    )
    burst: int = Field(default=0, ge=0, description="a whole number of requests")

    def fault(self) -> str | None:
        if self.interval and not self.burst:
            return "burst: expected at least 1 where interval is given: no request would pass"
        return None


class WebFile(_Section):
    """The whole file, checked. Sections that are missing or null ask for nothing."""

    tls_server_config: TlsServerConfig | None = Field(default=None, description="a mapping with cert_file and key_file")
    http_server_config: HttpServerConfig | None = Field(default=None, description="a mapping with headers")
    basic_auth_users: Annotated[dict[str, SecretText] | None, BeforeValidator(_hashes_as_text)] = Field(
        default=None, repr=False, description="a mapping of users and their bcrypt hashes"
    )
    rate_limit: RateLimitConfig | None = Field(default=None, description="a mapping with interval and burst")

    @model_validator(mode="after")
    def _is_of_a_piece(self) -> Self:
        for name in ("tls_server_config", "http_server_config", "rate_limit"):
            section = getattr(self, name)
            fault = None if section is None else section.fault()
            if fault is not None:
                key = fault.partition(": ")[0].split(".")
                raise MisfitError((name, *(part.strip("'") for part in key)), f"{name}.{fault}")
        for user, secret in (self.basic_auth_users or {}).items():
            match = _HASH.fullmatch(secret.get_secret_value())
            if match is None or not _COST_LEAST <= int(match["cost"]) <= _COST_MOST:
                raise MisfitError(
                    ("basic_auth_users", user),
                    f"basic_auth_users.{user[:60]!r}: expected a bcrypt hash ($2y$10$..., as of htpasswd -nBC 10 '')",
                )
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class WebRules:
    """What the file says, with the content of the files that it names."""

    file: str
    whole: WebFile = field(default=WebFile(), repr=False)
    source: Source | None = field(default=None, repr=False, compare=False)

    def place(self, *location: str) -> str:
        """Return `file:line: key` of what is found to be wrong only where it is used."""
        return f"{self.file if self.source is None else self.source.place(location)}: {'.'.join(location)}"

    @property
    def tls(self) -> TlsServerConfig | None:
        """The TLS that is wanted, or None for plain HTTP."""
        section = self.whole.tls_server_config
        return section if section is not None and section.is_wanted else None

    @property
    def users(self) -> dict[str, str]:
        """Users and their bcrypt hashes; nobody needs to log in when there are none."""
        return {user: secret.get_secret_value() for user, secret in (self.whole.basic_auth_users or {}).items()}

    @property
    def headers(self) -> dict[str, str]:
        """The headers that every answer carries."""
        section = self.whole.http_server_config
        return {name: value for name, value in ((section and section.headers) or {}).items() if value}

    @property
    def files(self) -> tuple[str, ...]:
        """Every file that the rules depend on, the file itself first."""
        tls = self.whole.tls_server_config
        named = [getattr(tls, key) for key in _FILES] if tls is not None else []
        return (self.file, *(path for path in named if path))


def read(path: str) -> WebRules:
    """Return what the file says; raises ConfigError that names file, line, key path and what was expected.

    The certificates that it names are only read where they are used: `expose.tls.context`.
    """
    source = read_mapping(Path(path), "tls_server_config or basic_auth_users")
    content = _with_whole_paths(Path(path).parent, source.content)
    try:
        return WebRules(file=path, whole=WebFile.model_validate(content), source=source)
    except ValidationError as exc:
        # `from None`: the library's own text quotes the values, keys and hashes among them.
        location, text = explained(exc.errors(), WebFile, _SECRETS)
        raise ConfigError(f"{source.place(location)}: {text}") from None


def _with_whole_paths(folder: Path, content: dict[Any, Any]) -> dict[Any, Any]:
    tls = content.get("tls_server_config")
    if not isinstance(tls, dict):
        return content
    whole = {key: str(folder / tls[key]) for key in _FILES if isinstance(tls.get(key), str) and tls[key]}
    return content | {"tls_server_config": tls | whole}
