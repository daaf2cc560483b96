"""The lines of the checklist after a deploy: each ok, bad or unknown, with the numbers that it rests on.

Owns what speaks against a deploy. Bad is only what a roll-back would most likely mend; what cannot be seen is unknown,
which is neither. Pure.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from batsignal.deploys.case import Case
from batsignal.deploys.conduct import LINE_SECONDS, Line, Sight, SignalSeen
from batsignal.snapshot import Deploy, Session
from batsignal.spelling import count, duration, latency

Status = Literal["ok", "bad", "unknown"]

# A pool keeps what it does not need for a while: this long without a use while more are opened is no pool at rest.
UNUSED_SECONDS = 30.0
UNUSED_MOST = 8
OPEN_TRANSACTION_SECONDS = 30.0
# A rolling deploy doubles the pools for a while, and a new version may hold somewhat more: not this much, for good.
SESSIONS_RATIO_MOST = 1.5
SESSIONS_MORE_MOST = 8
FAILURES_RATIO_MOST = 0.2
FAILURES_MOST_BEFORE_RATIO = 0.05
PROBES_LEAST = 3
SLOWER_RATIO_MOST = 3.0
SLOWER_SECONDS_LEAST = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One line of the checklist."""

    name: str
    status: Status
    text: str


def _server(case: Case) -> Check:
    unseen = [sight.server for sight in case.sights if not sight.up]
    if unseen or not case.sights:
        return Check(name="server", status="unknown", text=f"not seen now: {', '.join(unseen) or 'every server'}")
    hidden = [
        sight.server for sight in case.sights if sight.answered is not None and sight.answered.privileged is False
    ]
    if hidden:
        return Check(name="server", status="unknown", text=f"states are hidden from our role: {', '.join(hidden)}")
    return Check(name="server", status="ok", text=f"{', '.join(sight.server for sight in case.sights)} seen")


def _signals(case: Case) -> Check:
    """Look for signals since the deploy that name the service, or that name nobody and woke somebody."""
    against: list[str] = []
    others: list[str] = []
    for seen in case.signals:
        found = seen.signal.finding
        if found.since < case.deploy.at and not _blames(seen, case.deploy):
            continue
        state = "lit" if seen.is_lit else "was lit"
        text = f"{found.kind} ({found.severity}) {state}: {found.summary}"
        named = found.subject.application
        names_it = _blames(seen, case.deploy) or (named == case.deploy.service and _may_be_it(seen, case.deploy))
        names_nobody = named is None and found.subject.user is None and found.severity == "critical"
        (against if names_it or names_nobody else others).append(text)
    if against:
        return Check(name="signals", status="bad", text="; ".join(against[:3]))
    text = "none lit by it" + (f"; of others: {'; '.join(others[:2])}" if others else "")
    return Check(name="signals", status="ok", text=text)


def _blames(seen: SignalSeen, deploy: Deploy) -> bool:
    blamed = seen.signal.finding.deploy
    return blamed is not None and blamed.service == deploy.service and deploy.is_of(blamed.version)


def _may_be_it(seen: SignalSeen, deploy: Deploy) -> bool:
    version = seen.signal.finding.subject.version
    return version is None or deploy.is_of(version)


def _version(case: Case) -> Check:
    """Whether the new version runs at all, and the old one has gone."""
    new, seen = len(case.sessions), case.seen_since
    old = case.old_versions
    if new or any(case.deploy.is_of(version) for version in seen):
        rest = f"; {', '.join(old[:3])} still runs" if old else ""
        return Check(name="version", status="ok", text=f"{case.deploy.version} runs, {count(new, 'session')} now{rest}")
    if old and case.is_over and case.is_seen:
        text = f"{case.deploy.version} was not seen, {', '.join(old[:3])} runs"
        return Check(name="version", status="bad", text=text)
    if "" in seen:
        why = "its sessions name no version"
    elif seen:
        why = f"only {', '.join(sorted(seen)[:3])} was seen"
    else:
        why = f"no session whose application_name says {case.deploy.service} was seen"
    return Check(name="version", status="unknown", text=f"{why} since the deploy")


def _sessions(case: Case) -> Check:
    """How many sessions the service holds, against the most that it held before; judged when the window is over."""
    now = len(case.held)
    before = _most_by_server(case.lines(after=False))
    if not case.is_seen:
        return Check(name="sessions", status="unknown", text="not seen now")
    if not case.knows_before or before is None:
        return Check(name="sessions", status="unknown", text=f"{now} now; nobody looked before the deploy")
    text = f"{now} now, at most {before} before"
    is_more = now > before * SESSIONS_RATIO_MOST and now - before >= SESSIONS_MORE_MOST
    # Beside the old version the new one doubles what is held, for as long as the rollout takes.
    is_settled = case.is_over and not case.old_versions
    return Check(name="sessions", status="bad" if is_more and is_settled else "ok", text=text)


def _most_by_server(lines: Iterable[tuple[Sight, Line]]) -> int | None:
    most: dict[str, int] = {}
    for sight, line in lines:
        most[sight.server] = max(most.get(sight.server, 0), sum(line.sessions.values()))
    return sum(most.values()) if most else None


def _unused(case: Case) -> Check:
    """Look for sessions of the new version that are not used while more are opened: a leak before it is told."""
    total = len(case.sessions)
    if not total:
        return Check(name="unused", status="unknown", text="no session of the new version now")
    idle = sum(_is_unused(t, session) for t, session in case.sessions)
    opened = sum(
        session.backend_start is not None and t - session.backend_start < UNUSED_SECONDS for t, session in case.sessions
    )
    before = _most_by_server(case.lines(after=False))
    unused = f"{idle} of {count(total, 'session')} not used for {duration(UNUSED_SECONDS)} or more"
    text = f"{unused}, {opened} opened since then"
    # A pool at rest keeps what it does not need as well; it opens no more of it, and it was about as large before.
    is_more = idle >= UNUSED_MOST and opened > 0 and before is not None and idle > before
    return Check(name="unused", status="bad" if is_more and case.is_over else "ok", text=text)


def _is_unused(t: float, session: Session) -> bool:
    is_idle = session.state is not None and session.state.startswith("idle")
    return is_idle and session.state_change is not None and t - session.state_change >= UNUSED_SECONDS


def _transactions(case: Case) -> Check:
    """Transactions of the new version that were left open: begun long ago, and nothing runs in them."""
    ages = [
        t - session.xact_start
        for t, session in case.sessions
        if session.xact_start is not None
        and session.state is not None
        and session.state.startswith("idle in transaction")
        and session.state_change is not None
        and t - session.state_change >= OPEN_TRANSACTION_SECONDS
    ]
    if not case.sessions:
        return Check(name="transactions", status="unknown", text="no session of the new version now")
    if ages:
        text = f"{count(len(ages), 'transaction')} left open, the oldest for {duration(max(ages))}"
        return Check(name="transactions", status="bad", text=text)
    return Check(
        name="transactions", status="ok", text=f"none left open for {duration(OPEN_TRANSACTION_SECONDS)} or more"
    )


def _statements(case: Case) -> Check:
    """Tell the share of statements that the service never ran before; a new version may well bring some."""
    new, seen, is_whole = 0, 0, True
    for sight in case.sights:
        if sight.service is not None:
            known = sight.service.statements
            is_whole = is_whole and known.is_whole
            since = [name for name, t in known.last.items() if t >= case.deploy.at]
            seen += len(since)
            new += sum(known.first[name] >= case.deploy.at for name in since)
    if not case.knows_before or not is_whole:
        why = "too many to tell" if not is_whole else "nobody looked before the deploy"
        return Check(name="statements", status="unknown", text=f"{seen} since the deploy; {why}")
    if not seen:
        return Check(name="statements", status="unknown", text="none seen since the deploy")
    return Check(name="statements", status="ok", text=f"{new} of {seen} were never seen before ({new / seen:.0%})")


def _health(case: Case) -> Check:
    """Hold the service's own health endpoints against what they were before."""
    before, after = ([line for _, line in case.lines(after=one) if line.probes] for one in (False, True))
    probes, failures = _sum(after, lambda line: line.probes), _sum(after, lambda line: line.failures)
    if not probes:
        return Check(name="health", status="unknown", text="no probe of its endpoints since the deploy")
    probed_before = _sum(before, lambda line: line.probes)
    ratio, ratio_before = failures / probes, _sum(before, lambda line: line.failures) / max(probed_before, 1)
    slowest, slowest_before = (max((line.slowest_seconds for line in lines), default=0.0) for lines in (after, before))
    text = f"{failures} of {count(probes, 'probe')} failed, the slowest took {latency(slowest)}"
    if probed_before:
        text += f"; before {ratio_before:.0%} failed, the slowest took {latency(slowest_before)}"
    fails = probes >= PROBES_LEAST and ratio >= FAILURES_RATIO_MOST and ratio_before <= FAILURES_MOST_BEFORE_RATIO
    typical = sorted(line.slowest_seconds for line in after)[len(after) // 2]
    is_slow = (
        probed_before >= PROBES_LEAST
        and probes >= PROBES_LEAST
        and typical > slowest_before * SLOWER_RATIO_MOST
        and typical - slowest_before >= SLOWER_SECONDS_LEAST
    )
    return Check(name="health", status="bad" if fails or (is_slow and case.is_over) else "ok", text=text)


def _sum(lines: Sequence[Line], number: Callable[[Line], int]) -> int:
    return sum(map(number, lines))


def _refusals(case: Case) -> Check:
    """Refused connections since the deploy, where there were none before."""
    at = case.deploy.at
    before = sum(refused for sight in case.sights for t, refused in sight.refused if t + LINE_SECONDS <= at)
    after = sum(refused for sight in case.sights for t, refused in sight.refused if t >= at)
    text = f"{after} since the deploy" + (f", {before} before" if before else "")
    return Check(name="refusals", status="bad" if after and not before else "ok", text=text)


CHECKS: tuple[Callable[[Case], Check], ...] = (
    _server,
    _signals,
    _version,
    _sessions,
    _unused,
    _transactions,
    _statements,
    _health,
    _refusals,
)
