"""Why a connection was refused, as a value: libpq's error, and what a raw startup packet learns beside it.

libpq gives no SQLSTATE for a failed connect and its words depend on the server's language, so the server is asked
once more in its own protocol (`startup`). Only then is the reason known rather than guessed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from batsignal.poll.conninfo import APPLICATION_NAME, first_of, redacted
from batsignal.poll.guarded import DeadlineError
from batsignal.poll.resolve import ResolveError, Resolver
from batsignal.poll.startup import StartupTarget, diagnose
from batsignal.poll.startup_error import server_message
from batsignal.snapshot import PollFailure

DIAGNOSE_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A failed connect: the error, and libpq's own parameters for it as far as they are known."""

    error: Exception
    parameters: Mapping[str, str]
    password: str | None = field(repr=False)


def explain(refusal: Refusal, resolver: Resolver) -> PollFailure:
    """Return the reason of a failed connect; takes at most `DIAGNOSE_SECONDS`, and never raises."""
    if isinstance(refusal.error, DeadlineError):
        return PollFailure(reason="timeout", text="the server did not let us in in time: no answer")
    if not refusal.parameters:
        # libpq's own words quote the string, and with it the password.
        return PollFailure(reason="unreachable", text="libpq cannot read the connection string")
    text = server_message(redacted(str(refusal.error), refusal.password)) or type(refusal.error).__name__
    if not refusal.parameters.get("user"):
        return PollFailure(reason="unreachable", text=text)  # libpq refused before it went anywhere
    try:
        learnt = diagnose(_target(refusal, resolver), deadline_seconds=DIAGNOSE_SECONDS)
    except ResolveError as exc:
        return PollFailure(reason="unreachable", text=str(exc))
    return learnt or PollFailure(reason="unreachable", text=text)


def _target(refusal: Refusal, resolver: Resolver) -> StartupTarget:
    parameters = refusal.parameters
    host = first_of(parameters, "host") or first_of(parameters, "hostaddr") or "/var/run/postgresql"
    address = first_of(parameters, "hostaddr")
    addresses: tuple[str, ...] = (address,) if address else ()
    if not addresses and not host.startswith(("/", "@")):
        addresses = resolver.addresses(host, DIAGNOSE_SECONDS)
    return StartupTarget(
        host=host,
        addresses=addresses,
        port=int(first_of(parameters, "port", "5432")),
        user=parameters["user"],
        database=parameters.get("dbname") or parameters["user"],
        password=refusal.password,
        sslmode=parameters.get("sslmode", "prefer"),
        sslrootcert=parameters.get("sslrootcert") or None,
        sslcert=parameters.get("sslcert") or None,
        sslkey=parameters.get("sslkey") or None,
        sslnegotiation=parameters.get("sslnegotiation", "postgres"),
        application_name=APPLICATION_NAME,
    )
