"""What is said of a signal that is over: what it was, how long it lasted, and that nothing is to be undone for it now.

Owns the sentences in the past tense, one for each kind. While a signal is lit its detector speaks, in the present: left
standing when it has ended, "slots run out in 3 min, roll back" would send somebody to undo what is over. Pure: the end
is an argument.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from batsignal.detect import wording
from batsignal.detect.signal import Event, Kind, Signal
from batsignal.snapshot import Deploy

# A deploy of the culprit's service so shortly before the end is worth a word: most often it is the roll-back.
DEPLOY_SECONDS = 900.0
NOTHING_TO_DO = "Nothing is to be undone or restarted for it now: it is over."


def told_over(event: Event, deploys: Iterable[Deploy] = ()) -> Event:
    """Return an event that clears a signal with the signal told in hindsight; any other event as it is.

    `deploys` are all that are known at the end.
    """
    if event.event != "cleared":
        return event
    signal = event.signal
    finding = replace(
        signal.finding,
        summary=f"{_WAS[signal.finding.kind](signal)}; {_end(event, deploys)}",
        action=NOTHING_TO_DO if event.by is None else f"It came of incident {event.by}: what to do is said there.",
    )
    return replace(event, signal=replace(signal, finding=finding))


def _end(event: Event, deploys: Iterable[Deploy]) -> str:
    """Say how long it lasted, and what was deployed right before it ended."""
    found = event.signal.finding
    lasted = wording.duration(event.t - found.since)
    if event.by is not None:
        return f"after {lasted} it was found to come of another incident"
    own = [
        one
        for one in deploys
        if one.service == found.subject.application
        and event.signal.detected <= one.at <= event.t
        and event.t - one.at <= DEPLOY_SECONDS
    ]
    last = max(own, key=lambda one: one.at, default=None)
    if last is None:
        return f"it lasted {lasted}"
    after = wording.duration(event.t - last.at)
    return f"it lasted {lasted}, and ended {after} after the deploy of {last.service}@{last.version}"


def _most(signal: Signal) -> str:
    return wording.sessions(max(signal.sessions_most, signal.finding.sessions))


def _who(signal: Signal, nobody: str | None = None) -> str:
    """Return who it was; `nobody` are the words for it where neither a service nor a user is known."""
    subject = signal.finding.subject
    is_known = subject.application or subject.user
    return wording.culprit(subject) if is_known or nobody is None else nobody


def _leak(signal: Signal) -> str:
    return f"{_who(signal)} leaked connections: {_most(signal)} held at most"


def _pool_starvation(signal: Signal) -> str:
    pool = signal.finding.subject.pool
    whose = f"PgBouncer's pool {pool}" if pool else f"{_who(signal)}'s own pool"
    return f"{whose} had nothing left to lend"


def _query_pileup(signal: Signal) -> str:
    return f"one statement of {_who(signal)} piled up: {_most(signal)} ran it at once at most"


def _lock_pileup(signal: Signal) -> str:
    who = _who(signal, "a transaction of nobody known")
    return f"{who} blocked others: {_most(signal)} waited for its locks at most"


def _storm(signal: Signal) -> str:
    return f"{_who(signal, 'clients')} asked for sessions far faster than usual"


def _idle_in_transaction(signal: Signal) -> str:
    return f"{_who(signal)} had left a transaction open"


def _saturation(signal: Signal) -> str:
    kind, _, owner = (signal.finding.subject.limit or "server").partition(":")
    what = f"the connection limit of {kind} {owner}" if owner else f"the connection slots of {signal.server}"
    return f"{what} ran short: {_most(signal)} held at most"


def _endpoint(signal: Signal, was: str) -> str:
    subject = signal.finding.subject
    of = f" of {subject.application}" if subject.application else ""
    return f"the health endpoint {subject.endpoint or 'of a service'}{of} {was}"


def _endpoint_down(signal: Signal) -> str:
    return _endpoint(signal, "failed")


def _endpoint_slow(signal: Signal) -> str:
    return _endpoint(signal, "was slow against its own past")


def _database_unreachable(signal: Signal) -> str:
    return f"there was no way into {signal.server}"


_WAS: Mapping[Kind, Callable[[Signal], str]] = {
    "leak": _leak,
    "pool_starvation": _pool_starvation,
    "query_pileup": _query_pileup,
    "lock_pileup": _lock_pileup,
    "storm": _storm,
    "idle_in_transaction": _idle_in_transaction,
    "saturation": _saturation,
    "endpoint_down": _endpoint_down,
    "endpoint_slow": _endpoint_slow,
    "database_unreachable": _database_unreachable,
}
