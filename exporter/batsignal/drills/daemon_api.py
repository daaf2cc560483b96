"""A daemon seen through its public HTTP API, wherever it runs: what any user could see.

Owns the requests and the reading of `/api/v1/signals` and `/api/v1/status` into frozen values. It must not import the
daemon or look at the database.
"""

import base64
import http.client
import json
import os
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from batsignal.errors import ConfigError, UnreachableError

REQUEST_TIMEOUT_SECONDS = 2.0
# What a person or a pipeline asks may take longer than what is asked several times a second.
ASK_TIMEOUT_SECONDS = 10.0
ANSWER_BYTES_MOST = 64 * 1024 * 1024
# What a daemon says in plain text is a sentence; more than this is somebody else's page.
_SENTENCE_CHARS_MOST = 160
# Below this, two clocks that differ are one clock and a slow answer.
CLOCK_SLACK_SECONDS = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalSeen:
    """A lit signal, as the API tells it; `detected` is by the daemon's clock."""

    id: str
    kind: str
    severity: str
    summary: str
    action: str
    evidence: tuple[str, ...]
    detected: float
    subject: Mapping[str, Any] = field(default_factory=dict)
    exhaustion_seconds: float | None = None
    deploy: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """What the daemon says at one moment. Slots are None while it cannot see them."""

    state: str
    slots_used: int | None
    slots_usable: int | None
    sessions: Mapping[str, int]
    """Sessions of the shop by version."""
    signals: tuple[SignalSeen, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lit:
    """The signals that are lit, and how far our clock is ahead of the daemon's (0 when that may be the request)."""

    signals: tuple[SignalSeen, ...]
    ahead_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a daemon, or something else at its address, answered: the object in its body, empty when that is none.

    `said` is the body when it is one sentence of plain text, else empty.
    """

    status: int
    content: Mapping[str, Any]
    said: str = ""


class DaemonApi:
    """Asks a daemon at `host` and `port`; `tls` for https, `prefix` before `/api`, `login` for HTTP Basic."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        tls: ssl.SSLContext | None = None,
        prefix: str = "",
        login: tuple[str, str] | None = None,
    ) -> None:
        self._host = host
        self._port = port
        self._tls = tls
        self._prefix = prefix
        self._login = login

    def get(self, path: str) -> bytes | None:
        """Return the body of an answer with status 200, else None."""
        try:
            status, body = self._request("GET", path, None, {}, REQUEST_TIMEOUT_SECONDS)
        except (OSError, http.client.HTTPException):
            return None
        return body if status == http.HTTPStatus.OK else None

    def ask(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str],
        timeout_seconds: float = ASK_TIMEOUT_SECONDS,
    ) -> Answer:
        """Return an answer of any status as JSON; raises UnreachableError when none comes."""
        content = None if body is None else json.dumps(body).encode("ascii")
        given = {"Content-Type": "application/json", **headers}
        try:
            status, raw = self._request(method, path, content, given, timeout_seconds)
        except (OSError, http.client.HTTPException) as exc:
            reason = (isinstance(exc, OSError) and exc.strerror) or str(exc) or type(exc).__name__
            where = f"{self._host}:{self._port}"
            raise UnreachableError(f"no answer from the daemon at {where}: {reason}{_hint(exc)}") from exc
        try:
            answer = json.loads(raw)
        except (ValueError, RecursionError):
            answer = None
        found = answer if isinstance(answer, dict) else {}
        return Answer(status=status, content=found, said="" if found else _sentence(raw))

    def _request(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str], timeout_seconds: float
    ) -> tuple[int, bytes]:
        connection = (
            http.client.HTTPConnection(self._host, self._port, timeout=timeout_seconds)
            if self._tls is None
            else http.client.HTTPSConnection(self._host, self._port, timeout=timeout_seconds, context=self._tls)
        )
        if self._login is not None:
            basic = base64.b64encode(":".join(self._login).encode()).decode("ascii")
            headers = {"Authorization": f"Basic {basic}", **headers}  # a bearer token comes instead of it
        try:
            connection.request(method, self._prefix + path, body, dict(headers))
            answer = connection.getresponse()
            return answer.status, answer.read(ANSWER_BYTES_MOST)
        finally:
            connection.close()

    def lit(self) -> Lit | None:
        """Return what is lit now, or None when the daemon does not answer or answers something else."""
        body = self.get("/api/v1/signals")
        if body is None:
            return None
        try:
            answer = json.loads(body)
            ahead = time.time() - answer["time"]
            signals = tuple(read_signal(row) for row in answer["signals"])
        except (ValueError, KeyError, TypeError, RecursionError):
            return None
        return Lit(signals=signals, ahead_seconds=ahead if abs(ahead) > CLOCK_SLACK_SECONDS else 0.0)


def api_at(url: str, environment: Mapping[str, str] = os.environ) -> DaemonApi:
    """Return the API of a daemon's page, `http[s]://[USER:PASSWORD@]HOST[:PORT]`.

    For https the environment may name files: `BATSIGNAL_CA` whom to trust beside the system's authorities,
    `BATSIGNAL_CERT` our own certificate and key. Raises ConfigError for what is no such address or file.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        raise ConfigError(
            f"--url: expected the address of a daemon's page (http://HOST:PORT), got {without_login(url)!r}"
        )
    tls = _trust(environment) if parts.scheme == "https" else None
    login = (unquote(parts.username or ""), unquote(parts.password or "")) if "@" in parts.netloc else None
    prefix = parts.path.rstrip("/")
    return DaemonApi(parts.hostname, port or (443 if tls else 80), tls=tls, prefix=prefix, login=login)


def without_login(url: str) -> str:
    """Return an address as it may be shown.

    >>> without_login("https://prom:s3cret@db1:9988/x"), without_login("http://db1:9988")
    ('https://******@db1:9988/x', 'http://db1:9988')
    """
    before, at, after = url.rpartition("@")
    return f"{before.partition('://')[0]}://******@{after}" if at and "://" in before else after if at else url


def _hint(exc: Exception) -> str:
    """Return what may be done about an answer that did not come, to be put behind the reason; empty when unknown."""
    if isinstance(exc, ConnectionRefusedError):
        return "; is `batsignal run` at work there? --url or BATSIGNAL_URL says where it is"
    if isinstance(exc, ssl.SSLCertVerificationError):
        return "; BATSIGNAL_CA names a file with the authorities to trust"
    if isinstance(exc, ssl.SSLError):
        return "; is it https:// that is spoken there, or http://?"
    return ""


def _sentence(raw: bytes) -> str:
    r"""Return a body that is one printable sentence, else nothing.

    >>> _sentence(b"A login is needed here.\n"), _sentence(b"<html>"), _sentence(b"\xff")
    ('A login is needed here.', '', '')
    """
    try:
        text = raw.decode("utf-8").strip()
    except UnicodeDecodeError:
        return ""
    return text if len(text) <= _SENTENCE_CHARS_MOST and text.isprintable() and text[:1].isalpha() else ""


def _trust(environment: Mapping[str, str]) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authorities, certificate = environment.get("BATSIGNAL_CA"), environment.get("BATSIGNAL_CERT")
    try:
        if authorities:
            context.load_verify_locations(cafile=authorities)
    except OSError as exc:  # ssl.SSLError is one
        raise ConfigError(f"BATSIGNAL_CA: expected a file of certificates in PEM, got {authorities!r}") from exc
    try:
        if certificate:
            context.load_cert_chain(certificate, password="")
    except OSError as exc:
        raise ConfigError(
            f"BATSIGNAL_CERT: expected a file with a certificate and its key in PEM, got {certificate!r}"
        ) from exc
    return context


def read_sighting(status: Mapping[str, Any], signals: Mapping[str, Any], service: str) -> Sighting:
    """Read the two answers of the API; only the first server counts, and only `service` among its applications."""
    server = status["servers"][0]
    slots = server.get("slots") or {}
    sessions: dict[str, int] = {}
    for row in server.get("applications") or ():
        if row["application"] == service:
            version = row["version"] or "?"
            sessions[version] = sessions.get(version, 0) + row["sessions"]
    return Sighting(
        state=server["state"],
        slots_used=slots.get("used"),
        slots_usable=slots.get("usable"),
        sessions=sessions,
        signals=tuple(read_signal(row) for row in signals["signals"]),
    )


def read_signal(row: Mapping[str, Any]) -> SignalSeen:
    """Read one SIGNAL object of the API."""
    return SignalSeen(
        id=row["id"],
        kind=row["kind"],
        severity=row["severity"],
        summary=row["summary"],
        action=row["action"],
        evidence=tuple(row["evidence"]),
        detected=row["detected"],
        subject=row.get("subject") or {},
        exhaustion_seconds=row.get("exhaustion_seconds"),
        deploy=row.get("deploy"),
    )
