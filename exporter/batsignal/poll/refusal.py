"""Why a connection was refused, as a value: libpq's error, and what a raw startup packet learns beside it.

libpq gives no SQLSTATE for a failed connect and its words depend on the server's language, so the server is asked
once more in its own protocol (`startup`). Only then is the reason known rather than guessed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from batsignal.poll.conninfo import APPLICATION_NAME, redacted
from batsignal.poll.guarded import GAVE_UP, INSUFFICIENT_PRIVILEGE, DeadlineError
from batsignal.poll.resolve import ResolveError, Resolver
from batsignal.poll.startup import StartupTarget, diagnose
from batsignal.poll.startup_error import pooler_refusal, server_message
from batsignal.snapshot import FailureReason, PollFailure

Place = tuple[str, str, str]
"""Host (a name, or a socket directory), numeric address (empty where there is none) and port, as libpq has them."""

DIAGNOSE_SECONDS = 1.0
PLACES_MOST = 8
# Of several servers that refuse, the one that says most is believed: a full server explains more than a dead one.
_TELLING: tuple[FailureReason, ...] = (
    "slots_full",
    "role_limit",
    "database_limit",
    "not_accepting",
    "no_database",
    "auth_failed",
    "tls_failed",
    "timeout",
    "refused",
    "unreachable",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A failed connect: the error, and libpq's own parameters for it as far as they are known."""

    error: Exception
    parameters: Mapping[str, str]
    password: str | None = field(repr=False)


def explain(refusal: Refusal, resolver: Resolver) -> PollFailure:
    """Return the reason of a failed connect; takes at most `DIAGNOSE_SECONDS`, and never raises."""
    if isinstance(refusal.error, ResolveError):
        return PollFailure(reason="unreachable", text=str(refusal.error))
    if isinstance(refusal.error, DeadlineError) or getattr(refusal.error, "pgcode", None) in GAVE_UP:
        return PollFailure(reason="timeout", text="the server did not let us in in time: no answer")
    if not refusal.parameters:
        # libpq's own words quote the string, and with it the password.
        return PollFailure(reason="unreachable", text="libpq cannot read the connection string")
    told = getattr(refusal.error, "diag", None)  # what the server said to a statement, without the place in its text
    said = (told and told.message_primary) or str(refusal.error)
    text = server_message(redacted(said, refusal.password)) or type(refusal.error).__name__
    if not refusal.parameters.get("user"):
        return PollFailure(reason="unreachable", text=text)  # libpq refused before it went anywhere
    return _learnt(refusal, resolver, text)


def _learnt(refusal: Refusal, resolver: Resolver, text: str) -> PollFailure:
    """Return what asking again tells, or what libpq met (`text`) where that says more."""
    if getattr(refusal.error, "pgcode", None) == INSUFFICIENT_PRIVILEGE:
        # We are in, and may not read the first thing that we ask for.
        return PollFailure(reason="auth_failed", sqlstate=INSUFFICIENT_PRIVILEGE, text=text)
    learnt = _ask_all(refusal, resolver)
    if learnt is None or (learnt.reason == "timeout" and pooler_refusal(text) is not None):
        # Nobody refuses: somebody would let us in now. Or a pooler has told us what it has not told again in a second.
        return _as_libpq_says(text)
    return learnt


def _as_libpq_says(text: str) -> PollFailure:
    """Return what libpq met where a start alone is let in: a pooler greets before it has a session to lend."""
    said = text.partition("server closed the connection unexpectedly")[0].removeprefix("FATAL:").strip() or text
    reason, meaning = pooler_refusal(said) or ("unreachable", None)
    by_pooler = meaning is not None
    return PollFailure(reason=reason, text=f"{meaning}: {said}" if by_pooler else text, by_pooler=by_pooler)


def knock(parameters: Mapping[str, str], password: str | None, resolver: Resolver) -> PollFailure | None:
    """Return why a new session like one that is open would not be let in, None if it would; takes at most a second."""
    return _ask_all(Refusal(error=ConnectionError(), parameters=parameters, password=password), resolver)


def _ask_all(refusal: Refusal, resolver: Resolver) -> PollFailure | None:
    places = places_of(refusal.parameters)
    learnt = [_ask(refusal, place, resolver, DIAGNOSE_SECONDS / len(places)) for place in places]
    failures = [failure for failure in learnt if failure is not None]
    if len(failures) < len(learnt) or not failures:
        return None
    return min(failures, key=lambda failure: _TELLING.index(failure.reason))


def places_of(parameters: Mapping[str, str]) -> tuple[Place, ...]:
    """Return (host, address, port) of every server that libpq would try."""
    hosts = (parameters.get("host") or parameters.get("hostaddr") or "/var/run/postgresql").split(",")
    addresses = (parameters.get("hostaddr") or "").split(",")
    ports = (parameters.get("port") or "5432").split(",")
    return tuple(
        (
            host or "/var/run/postgresql",
            addresses[index] if index < len(addresses) else "",
            (ports[index] if index < len(ports) else ports[0]) or "5432",
        )
        for index, host in enumerate(hosts[:PLACES_MOST])
    )


def _ask(refusal: Refusal, place: Place, resolver: Resolver, deadline_seconds: float) -> PollFailure | None:
    try:
        return diagnose(_target(refusal, place, resolver, deadline_seconds), deadline_seconds=deadline_seconds)
    except ResolveError as exc:
        return PollFailure(reason="unreachable", text=str(exc))


def _target(refusal: Refusal, place: Place, resolver: Resolver, deadline_seconds: float) -> StartupTarget:
    parameters = refusal.parameters
    host, address, port = place
    addresses: tuple[str, ...] = (address,) if address else ()
    if not addresses and not host.startswith(("/", "@")):
        addresses = resolver.addresses(host, deadline_seconds)
    return StartupTarget(
        host=host,
        addresses=addresses,
        port=int(port),
        user=parameters["user"],
        database=parameters.get("dbname") or parameters["user"],
        password=refusal.password,
        sslmode=parameters.get("sslmode", "prefer"),
        sslrootcert=parameters.get("sslrootcert") or None,
        sslcert=parameters.get("sslcert") or None,
        sslkey=parameters.get("sslkey") or None,
        sslnegotiation=parameters.get("sslnegotiation", "postgres"),
        replication=parameters.get("replication"),
        application_name=APPLICATION_NAME,
    )
