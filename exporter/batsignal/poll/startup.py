"""Asks a server why it does not let us in: one raw connection start, up to ReadyForQuery and no further.

Owns the order of the start (TLS or not, startup packet, authentication, refusal) as libpq's `sslmode` has it. It runs
no query, resolves no name, keeps no connection and never has two open. It exists because psycopg2 carries no SQLSTATE
on a failed connect and libpq's text follows `lc_messages`: only the ErrorResponse itself says which limit was met.
"""

import os
import ssl
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from batsignal.poll.startup_auth import Authenticator
from batsignal.poll.startup_error import RefusedError, error_from_response, server_message
from batsignal.poll.startup_wire import Deadline, Wire, dial
from batsignal.snapshot import PollFailure

# https://www.postgresql.org/docs/current/protocol-message-formats.html
_PROTOCOL_3_0 = 3 << 16
_SSL_REQUEST = struct.pack("!II", 8, 80877103)
_TERMINATE = b"X" + struct.pack("!I", 4)
_ALPN = "postgresql"

_Tls = Literal["never", "if_offered", "always"]

# The second way is tried, as libpq does, only when encryption may have been what the first one failed for.
_WAYS: dict[str, tuple[_Tls, ...]] = {
    "disable": ("never",),
    "allow": ("never", "always"),
    "prefer": ("if_offered", "never"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class StartupTarget:
    """Where to knock and as whom, in libpq's words; `addresses` are numeric, resolved by the caller."""

    host: str
    """A name or address, or a socket directory: beginning with `/`, or `@` in the abstract namespace."""
    addresses: tuple[str, ...]
    """Empty for a socket directory."""
    port: int
    user: str
    database: str
    password: str | None = field(repr=False)
    sslmode: str = "prefer"
    sslrootcert: str | None = None
    sslcert: str | None = None
    sslkey: str | None = None
    sslnegotiation: str = "postgres"
    """Or `direct`: TLS from the first byte on (PostgreSQL 17+)."""
    replication: str | None = None
    """`database` asks for a walsender that answers queries, as libpq's parameter of that name does."""
    application_name: str = "batsignal"

    @property
    def is_directory(self) -> bool:
        return self.host.startswith(("/", "@"))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Outcome:
    failure: PollFailure | None
    encrypted: bool


def diagnose(target: StartupTarget, *, deadline_seconds: float) -> PollFailure | None:
    """Return why the server does not let us in, None when it does.

    Connecting to all addresses, TLS and authentication together take at most `deadline_seconds`; what is not known by
    then is `timeout`. At most one connection is open at any moment, and none afterwards.
    """
    deadline = Deadline(deadline_seconds)
    ways: tuple[_Tls, ...] = ("never",) if target.is_directory else _WAYS.get(target.sslmode, ("always",))
    first = _try_way(target, ways[0], deadline)
    if first.failure is None or len(ways) == 1 or not _encryption_may_decide(first.failure):
        return first.failure
    if ways[0] == "if_offered" and not first.encrypted:
        return first.failure  # that was in plain already
    second = _try_way(target, ways[1], deadline)
    return _more_telling(first.failure, second.failure)


def _encryption_may_decide(failure: PollFailure) -> bool:
    """Tell whether another line of pg_hba.conf, or no TLS, could have let us in: no CONNECT privilege is past both."""
    return failure.reason == "tls_failed" or (failure.reason == "auth_failed" and failure.sqlstate != "42501")


def _more_telling(first: PollFailure, second: PollFailure | None) -> PollFailure | None:
    """Choose between the two ways: the second counts when it got past encryption and pg_hba.conf."""
    if second is None:
        return None
    got_further = second.reason not in {"tls_failed", "timeout", "unreachable", "refused"}
    return second if got_further and second.sqlstate != "28000" else first


def _try_way(target: StartupTarget, tls: _Tls, deadline: Deadline) -> _Outcome:
    encrypted = False
    deadline.doing = "connecting"
    try:
        with dial(host=target.host, addresses=target.addresses, port=target.port, deadline=deadline) as wire:
            if tls != "never":
                # Set before the handshake: one that fails is an encrypted way too, and a plain one may follow.
                encrypted = _server_takes_tls(wire, target, tls)
            if encrypted:
                _encrypt(wire, target)
            _start_session(wire, target)
    except RefusedError as exc:
        return _Outcome(failure=exc.failure, encrypted=encrypted)
    except TimeoutError:
        text = f"no answer within {deadline.seconds:g} s while {deadline.doing}"
        return _Outcome(failure=PollFailure(reason="timeout", text=text), encrypted=encrypted)
    except ssl.SSLError as exc:
        # TLS 1.3 tells of a client certificate it does not like only with the first read after the handshake.
        return _Outcome(failure=_tls_failure(exc).failure, encrypted=encrypted)
    except OSError as exc:
        text = f"the connection broke while {deadline.doing}: {exc.strerror or exc}"
        return _Outcome(failure=PollFailure(reason="unreachable", text=text), encrypted=encrypted)
    return _Outcome(failure=None, encrypted=encrypted)


def _server_takes_tls(wire: Wire, target: StartupTarget, tls: _Tls) -> bool:
    if target.sslnegotiation == "direct":
        return True
    wire.deadline.doing = "asking for TLS"
    wire.send(_SSL_REQUEST)
    answer = wire.read(1)
    if answer == b"S":
        return True
    if answer == b"E":
        raise error_from_response(wire.read_message(answer)[1])
    if answer != b"N":
        raise wire.stranger(answer)
    if tls == "always":
        raise RefusedError("tls_failed", f"sslmode={target.sslmode}, and the server offers no TLS")
    return False


def _encrypt(wire: Wire, target: StartupTarget) -> None:
    wire.deadline.doing = "setting up TLS"
    try:
        wire.start_tls(_tls_context(target), server_name=target.host or target.addresses[0])
    except TimeoutError:
        raise
    # ValueError: a host that cannot stand in a certificate. OSError: hung up in the middle of the handshake.
    except (OSError, ValueError) as exc:
        raise _tls_failure(exc) from exc
    if target.sslnegotiation == "direct" and wire.chosen_protocol() != _ALPN:
        raise RefusedError("tls_failed", "TLS came up, but its other end does not say that it is PostgreSQL")


def _tls_context(target: StartupTarget) -> ssl.SSLContext:
    """Return what libpq would use: a root certificate that is there is held against the server in every mode."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols([_ALPN])
    context.check_hostname = target.sslmode == "verify-full"
    root = target.sslrootcert or _home_file("root.crt")
    if root == "system":
        context.set_default_verify_paths()
    elif _is_there(root):
        _use(lambda: context.load_verify_locations(cafile=root), f"root certificate {root}")
    elif target.sslmode.startswith("verify"):
        raise RefusedError("tls_failed", f"sslmode={target.sslmode}, and there is no root certificate {root}")
    else:
        context.verify_mode = ssl.CERT_NONE
    certificate = target.sslcert or _home_file("postgresql.crt")
    if _is_there(certificate):
        key = target.sslkey or _home_file("postgresql.key")
        # An empty passphrase: without one OpenSSL would stop and ask at the terminal.
        _use(
            lambda: context.load_cert_chain(certificate, key, password=""),
            f"client certificate {certificate} or its key",
        )
    return context


def _home_file(name: str) -> str:
    # os.path leaves the ~ of a user without a home as it is; libpq goes on without those files, too.
    return os.path.expanduser(f"~/.postgresql/{name}")  # noqa: PTH111  Path.expanduser raises without a home


def _is_there(path: str) -> bool:
    # As libpq's stat(): a directory we may not enter counts as a file that is not there.
    return os.path.exists(path)  # noqa: PTH110  Path.exists raises PermissionError before Python 3.12


def _use(load: Callable[[], None], what: str) -> None:
    try:
        load()
    except OSError as exc:
        raise RefusedError("tls_failed", f"the {what} cannot be used: {_said(exc)}") from exc


def _tls_failure(error: Exception) -> RefusedError:
    return RefusedError("tls_failed", f"TLS failed: {server_message(_said(error))}")


def _said(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.replace("_", " ").lower()
    return (isinstance(error, OSError) and error.strerror) or str(error)


def _start_session(wire: Wire, target: StartupTarget) -> None:
    """Go from the startup packet to ReadyForQuery; raise RefusedError where the server ends it."""
    wire.deadline.doing = "waiting for the server's first word"
    wire.send(_startup_packet(target))
    authenticator = Authenticator(user=target.user, password=target.password)
    while True:
        kind, body = wire.read_message()
        if kind == b"E":
            raise error_from_response(body, secret=target.password if authenticator.password_shown else None)
        if kind == b"R":
            wire.deadline.doing = "authenticating"
            answer = authenticator.answer(body)
            if answer is not None:
                wire.send(answer)
            if authenticator.done:
                wire.deadline.doing = "waiting for the session to start"
        elif kind == b"Z" and authenticator.done:
            wire.send(_TERMINATE)
            return
        elif kind == b"Z":
            raise wire.stranger(b"ready before authentication")


def _startup_packet(target: StartupTarget) -> bytes:
    parameters = {
        "user": target.user,
        "database": target.database,
        "application_name": target.application_name,
        "client_encoding": "UTF8",
    }
    if target.replication is not None:
        parameters["replication"] = target.replication
    pairs = b"".join(
        name.encode() + b"\0" + value.encode("utf-8", "surrogateescape") + b"\0" for name, value in parameters.items()
    )
    payload = struct.pack("!I", _PROTOCOL_3_0) + pairs + b"\0"
    return struct.pack("!I", len(payload) + 4) + payload
