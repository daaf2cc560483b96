"""One line of a recording, both ways: what stands in the header and in a tick beside the rows.

Owns the spelling of every key but those of a row (`recording_rows`) and of what surrounds the sessions
(`recording_surroundings`). A key that is missing is unknown, never zero; a key that is not known is passed over. Which
line follows which is the reader's and the writer's affair.
"""

import re
from dataclasses import fields, replace
from functools import partial
from typing import Any

from batsignal.pattern_cost import costly_name
from batsignal.record.recording_fields import (
    INT4_MOST,
    SHOWN_CHARACTERS,
    Fault,
    Fields,
    each,
    each_of,
    expected,
    inside,
    instant,
    label,
    mapping,
    missing,
    seconds,
    text,
    truth,
    whole,
)
from batsignal.record.recording_format import FORMAT, VERSION, Header, ServerFacts
from batsignal.record.recording_surroundings import (
    deploy_fields,
    deploy_of,
    host_fields,
    host_of,
    pool_fields,
    pool_of,
    probe_fields,
    probe_of,
)
from batsignal.snapshot import (
    FAILURE_REASONS,
    VIEWS,
    Counters,
    PollFailure,
    Session,
    Slots,
    Snapshot,
)

_FACTS = tuple(one.name for one in fields(ServerFacts))


# -- the header --------------------------------------------------------------------------------------------------------


def read_header(line: Fields) -> Header:
    """Return the first line as a value; raises Fault."""
    if line.get("format") != FORMAT:
        raise Fault(f'expected "format": "{FORMAT}", got {repr(line.get("format"))[:SHOWN_CHARACTERS]}')
    if type(line.get("version")) is not int or line["version"] != VERSION:
        raise Fault(f"expected version {VERSION}, got {repr(line.get('version'))[:SHOWN_CHARACTERS]}")
    interval_seconds = seconds(line, "interval_seconds")
    if interval_seconds == 0:
        raise expected("interval_seconds", "a number of seconds above 0", interval_seconds)
    return Header(
        server=label(line, "server") or "server",
        started_at=instant(line, "started_at") or 0.0,
        interval_seconds=interval_seconds or 1.0,
        facts=read_facts(line, ServerFacts()),
        application_pattern=_pattern(line),
    )


def _pattern(line: Fields) -> str | None:
    pattern = text(line, "application_pattern")
    try:
        groups = re.compile(pattern or "(?P<service>)").groupindex
    except (re.error, RecursionError, OverflowError) as exc:
        raise Fault(f"application_pattern: expected a regular expression: {exc}") from exc
    if "service" not in groups:
        raise expected("application_pattern", "a group named 'service'", pattern)
    if pattern is not None and costly_name(pattern) is not None:
        raise expected("application_pattern", "one that is quick on any name", pattern)
    return pattern


def header_line(snapshot: Snapshot, *, server: str, interval_seconds: float, application_pattern: str | None) -> Fields:
    """Return the first line of a recording that begins with this snapshot, without the facts."""
    line: Fields = {
        "format": FORMAT,
        "version": VERSION,
        "server": server,
        "started_at": snapshot.t,
        "interval_seconds": interval_seconds,
    }
    return line if application_pattern is None else line | {"application_pattern": application_pattern}


# -- facts about the server --------------------------------------------------------------------------------------------


def read_facts(line: Fields, before: ServerFacts) -> ServerFacts:
    """Return the facts that a line gives, those of before where it gives none; raises Fault."""
    if line.keys().isdisjoint(_FACTS):
        return before
    given: dict[str, Any] = {
        "slots": inside("slots", _slots, mapping(line, "slots")),
        "server_version_num": whole(line, "server_version_num", most=INT4_MOST),
        "privileged": truth(line, "privileged"),
        "role": label(line, "role"),
    }
    given |= {
        key: each_of(line, key, _limit) for key in ("role_limits", "database_limits") if line.get(key) is not None
    }
    return replace(before, **{key: value for key, value in given.items() if value is not None})


def _slots(slots: Fields) -> Slots | None:
    if not slots:
        return None
    most = whole(slots, "max", least=1, most=INT4_MOST)
    if most is None:
        raise missing("max", "a whole number, 1 and more")
    superuser_reserved, reserved = (whole(slots, key) or 0 for key in ("superuser_reserved", "reserved"))
    if superuser_reserved + reserved >= most:  # no server starts so
        raise Fault(
            f"max: expected more than superuser_reserved and reserved together,"
            f" got {most} and {superuser_reserved + reserved}"
        )
    return Slots(max=most, superuser_reserved=superuser_reserved, reserved=reserved)


def _limit(limits: Fields, name: str) -> int | None:
    # As PostgreSQL writes them: -1 is none, and -2 marks a database whose DROP was interrupted.
    return whole(limits, name, least=-2, most=INT4_MOST)


def facts_line(snapshot: Snapshot) -> Fields:
    """Return what a snapshot knows of the server, for the header and for the tick in which it changes."""
    slots = snapshot.slots
    return {
        "server_version_num": snapshot.server_version_num,
        "slots": {"max": slots.max, "superuser_reserved": slots.superuser_reserved, "reserved": slots.reserved}
        if slots
        else None,
        "role_limits": dict(snapshot.role_limits),
        "database_limits": dict(snapshot.database_limits),
        "privileged": snapshot.privileged,
        "role": snapshot.role,
    }


# -- a tick ------------------------------------------------------------------------------------------------------------


def read_failure(line: Fields, key: str = "failure") -> PollFailure | None:
    """Return why the look of a line failed, None when it did not; raises Fault.

    `refusal` is spelled as `failure` is, and says why a look that did not fail was not made the ordinary way.
    """
    return inside(key, _failure, mapping(line, key))


def _failure(failure: Fields) -> PollFailure | None:
    if not failure:
        return None
    reason, said = label(failure, "reason"), label(failure, "text")
    if reason in FAILURE_REASONS:
        by_pooler = truth(failure, "by_pooler") or False
        return PollFailure(reason=reason, sqlstate=text(failure, "sqlstate"), text=said or reason, by_pooler=by_pooler)
    # Somebody else's word for why nothing was seen. That nothing was seen is certain, and the word is kept.
    words = ": ".join(word for word in (reason, said) if word) or "the look failed, the recording does not say why"
    return PollFailure(reason="unreachable", sqlstate=text(failure, "sqlstate"), text=words)


def read_tick(
    line: Fields,
    *,
    server: str,
    t: float,
    facts: ServerFacts,
    failure: PollFailure | None,
    sessions: tuple[Session, ...],
) -> Snapshot:
    """Return a tick's line as a snapshot with these sessions; raises Fault."""
    view = line.get("view")
    if view is None:
        view = "session" if failure is None else "none"
    if view not in VIEWS:
        raise expected("view", f"one of {', '.join(VIEWS)}", view)
    return Snapshot(
        server=server,
        t=t,
        sessions=sessions,
        own_sessions=whole(line, "own_sessions", most=INT4_MOST) or 0,
        authenticating=whole(line, "authenticating", most=INT4_MOST) or 0,
        slots=facts.slots,
        role_limits=facts.role_limits,
        database_limits=facts.database_limits,
        counters=inside("counters", _counters, mapping(line, "counters")),
        refused=whole(line, "refused", most=INT4_MOST),
        ping_seconds=seconds(line, "ping_seconds"),
        probes=each(line, "probes", partial(probe_of, t)),
        deploys=each(line, "deploys", deploy_of),
        failure=failure,
        refusal=None if failure is not None else read_failure(line, "refusal"),
        view=view,
        privileged=facts.privileged,
        role=facts.role,
        host=inside("host", host_of, mapping(line, "host")),
        pools=None if line.get("pools") is None else each(line, "pools", pool_of),
        server_version_num=facts.server_version_num,
    )


def _counters(counters: Fields) -> Counters | None:
    if not counters:
        return None
    return Counters(sessions=whole(counters, "sessions"), xact_commit=whole(counters, "xact_commit"))


def tick_line(snapshot: Snapshot) -> Fields:
    """Return a tick's line, its rows still to come; what is unknown is left out."""
    counters = snapshot.counters
    line: Fields = {"t": snapshot.t, "key": False, "own_sessions": snapshot.own_sessions}
    if snapshot.authenticating:
        line["authenticating"] = snapshot.authenticating
    if counters is not None:
        line["counters"] = {"sessions": counters.sessions, "xact_commit": counters.xact_commit}
    line["refused"] = snapshot.refused
    if snapshot.ping_seconds is not None:
        line["ping_seconds"] = snapshot.ping_seconds
    if snapshot.probes:
        line["probes"] = [probe_fields(probe) for probe in snapshot.probes]
    if snapshot.deploys:
        line["deploys"] = [deploy_fields(deploy) for deploy in snapshot.deploys]
    line["failure"] = _failure_fields(snapshot.failure)
    if snapshot.refusal is not None:
        line["refusal"] = _failure_fields(snapshot.refusal)
    line["view"] = snapshot.view
    if snapshot.pools is not None:
        line["pools"] = [pool_fields(pool) for pool in snapshot.pools]
    if snapshot.host is not None:
        line["host"] = host_fields(snapshot.host)
    line["sessions"] = []
    return line


def _failure_fields(failure: PollFailure | None) -> Fields | None:
    if failure is None:
        return None
    fields: Fields = {"reason": failure.reason, "sqlstate": failure.sqlstate, "text": failure.text}
    return {**fields, "by_pooler": True} if failure.by_pooler else fields
