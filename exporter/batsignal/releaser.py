"""Carries a release out on one server: look, choose, end, look again, and put it into the incident.

Owns the order of these steps and their patience. It works through the session that the watch keeps, between two looks,
so that it works when no slot is left, and takes no second one.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import psycopg2
import structlog

from batsignal.detect.signal import Signal
from batsignal.names import ApplicationPattern, printable
from batsignal.poll import ending
from batsignal.poll.guarded import DeadlineError
from batsignal.poll.rows import Row
from batsignal.releases.choice import choose
from batsignal.releases.order import Choice, Order, Outcome, Release
from batsignal.runner import ServerRunner
from batsignal.snapshot import Snapshot

ASK_SECONDS = 1.0
# Ticks wait meanwhile, and three that are missed are told as a server that does not answer.
ENDING_SECONDS = 1.5
PATIENCE_SECONDS = 6.0
# What was told to end needs a moment for it.
GONE_SECONDS = 2.0
GONE_LOOK_SECONDS = 0.2

log = structlog.get_logger(__name__)

Audit = Callable[[tuple[Signal, ...], float, Mapping[str, Any]], None]
"""Called with the signals, an instant by the server's clock, and what is to be kept."""


class NotSeenError(Exception):
    """The server cannot be asked now; the message says why."""


def release(
    order: Order,
    runner: ServerRunner,
    *,
    pattern: ApplicationPattern,
    signals: Iterable[Signal],
    dry_run: bool,
    asked_by: tuple[str, str | None],
    audit: Audit,
) -> Release:
    """Do what an order says, or say what it would do; raises NotSeenError.

    `signals` are those lit at the server, `asked_by` is a name and an address.
    """
    server = runner.config.name
    looked = _look(runner)
    choice = choose(looked, order, pattern)
    concerned = signals_of(signals, order)
    outcomes, rights = _end(runner, choice, dry_run=dry_run)
    done = Release(
        server=server,
        order=order,
        choice=choice,
        dry_run=dry_run,
        outcomes=outcomes,
        mend=_mend(rights, outcomes, choice),
        incidents=() if dry_run or not choice.chosen else tuple(signal.id for signal in concerned),
    )
    if dry_run or not choice.chosen:
        return done
    done = replace(done, gone=_count_gone(runner, done))
    by, address = asked_by
    log.warning(
        "sessions released",
        server=server,
        by=by,
        address=address,
        **{f"of_{name}": _plain(value) for name, value in order.as_json().items()},
        chosen=len(choice.chosen),
        ended=done.ended,
        gone=done.gone,
        incidents=",".join(done.incidents),
    )
    audit(concerned, looked.t, done.audit(by, address))
    return done


def _plain(value: Any) -> Any:
    """Return what an order says as a log can hold it on its line."""
    if isinstance(value, str):
        return printable(value)
    return ", ".join(value) if isinstance(value, list | tuple) else value


def signals_of(lit: Iterable[Signal], order: Order) -> tuple[Signal, ...]:
    """Return the signals that an order is about: those of its culprit, else all that are lit at the server."""
    signals = tuple(lit)
    of_it = tuple(signal for signal in signals if _is_about(signal, order))
    return of_it or signals


def _is_about(signal: Signal, order: Order) -> bool:
    found = signal.finding.subject
    whole = f"{found.application}@{found.version}"
    if order.application is not None and found.application is not None:
        return order.application in {found.application, whole}
    asked = ((found.user, order.user), (found.client, order.client))
    return any(known is not None and known == wanted for known, wanted in asked)


def _look(runner: ServerRunner) -> Snapshot:
    looked = runner.look_now(PATIENCE_SECONDS)
    if looked is None:
        raise NotSeenError("the server does not answer now: whom to end cannot be seen")
    if not looked.is_detailed:
        raise NotSeenError(
            f"the server is seen by way of {looked.view} only: there is no session to end others through"
        )
    if not looked.privileged:
        raise NotSeenError(f"the role may not see what other roles' sessions do: {looked.grant}")
    return looked


def _end(runner: ServerRunner, choice: Choice, *, dry_run: bool) -> tuple[tuple[Outcome, ...], ending.Rights | None]:
    """End what was chosen, as far as it may be; return what became of each, and whom we may end."""
    sessions = [held.session for held in choice.chosen]
    with runner.between_looks(PATIENCE_SECONDS) as poller:
        if poller is None:
            raise NotSeenError("a look at the server hangs: try again in a moment")

        def ask(query: str, arguments: Mapping[str, Any]) -> list[Row]:
            rows = poller.ask(query, arguments, time.monotonic() + ASK_SECONDS)
            if rows is None:
                raise psycopg2.OperationalError("the session of ours is gone")
            return rows

        try:
            rights = ending.rights(ask, (session.usename for session in sessions))
        except (DeadlineError, psycopg2.Error) as exc:
            raise NotSeenError("the session of ours broke off, nothing was ended: try again in a moment") from exc
        allowed = [session for session in sessions if rights is None or rights.may_end(session)]
        until = time.monotonic() + ENDING_SECONDS
        ends: Iterable[Outcome] = (
            ["would end" for _ in allowed]
            if dry_run
            else ending.end(ask, allowed, may_go_on=lambda: time.monotonic() < until)
        )
    outcomes = dict(zip((session.pid for session in allowed), ends, strict=True))
    return tuple(outcomes.get(session.pid, "not allowed") for session in sessions), rights


def _mend(rights: ending.Rights | None, outcomes: Iterable[Outcome], choice: Choice) -> str | None:
    """Return what lets us end those that we may not; None where that is not what is missing."""
    if rights is None or rights.anybody:
        return None
    is_missed = "not allowed" in outcomes or not choice.chosen
    return rights.grant if is_missed else None


def _count_gone(runner: ServerRunner, done: Release) -> int:
    """Return how many of those that were told to end are seen to have left."""
    ended = {
        held.session.key for held, outcome in zip(done.choice.chosen, done.outcomes, strict=True) if outcome == "ended"
    }
    until = time.monotonic() + GONE_SECONDS
    still = ended
    while still and time.monotonic() < until:
        time.sleep(GONE_LOOK_SECONDS)
        runner.run()
        looked = runner.look_now(PATIENCE_SECONDS)
        if looked is not None:
            still = ended & {session.key for session in looked.sessions}
    return len(ended) - len(still)
