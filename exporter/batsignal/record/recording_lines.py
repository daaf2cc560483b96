"""One line of a recording, both ways: what stands in the header and in a tick beside the rows.

Owns the spelling of every key but those of a row (`recording_rows`). A key that is missing is unknown, never zero; a
key that is not known is passed over. Which line follows which is the reader's and the writer's affair.
"""

import re
from dataclasses import fields, replace
from typing import Any

from batsignal.pattern_cost import costly_name
from batsignal.record.recording_fields import (
    SHOWN_CHARACTERS,
    Fault,
    Fields,
    count,
    expected,
    instant,
    label,
    mapping,
    number,
    numbers,
    objects,
    text,
    truth,
    whole,
    wholes,
)
from batsignal.record.recording_format import FORMAT, VERSION, Header, ServerFacts
from batsignal.snapshot import (
    FAILURE_REASONS,
    VIEWS,
    Counters,
    Deploy,
    HostLoad,
    PollFailure,
    PoolerPool,
    ProbeResult,
    Session,
    Slots,
    Snapshot,
)

_FACTS = tuple(one.name for one in fields(ServerFacts))
_POOL_COUNTS = ("cl_active", "cl_waiting", "sv_active", "sv_idle", "sv_used", "sv_tested", "sv_login")

# -- the header --------------------------------------------------------------------------------------------------------


def read_header(line: Fields) -> Header:
    """Return the first line as a value; raises Fault."""
    if line.get("format") != FORMAT:
        raise Fault(f'expected "format": "{FORMAT}", got {repr(line.get("format"))[:SHOWN_CHARACTERS]}')
    if type(line.get("version")) is not int or line["version"] != VERSION:
        raise Fault(f"expected version {VERSION}, got {repr(line.get('version'))[:SHOWN_CHARACTERS]}")
    interval_seconds = number(line, "interval_seconds")
    if interval_seconds is not None and interval_seconds <= 0:
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
        "slots": _slots(mapping(line, "slots")),
        "server_version_num": whole(line, "server_version_num"),
        "privileged": truth(line, "privileged"),
        "role": text(line, "role"),
    }
    given |= {key: wholes(line, key) for key in ("role_limits", "database_limits") if line.get(key) is not None}
    return replace(before, **{key: value for key, value in given.items() if value is not None})


def _slots(slots: Fields) -> Slots | None:
    if not slots:
        return None
    most, *reserved = (count(slots, key, "slots.") for key in ("max", "superuser_reserved", "reserved"))
    if most is None:
        raise Fault("slots.max: missing; expected a whole number, 0 and more")
    return Slots(max=most, superuser_reserved=reserved[0] or 0, reserved=reserved[1] or 0)


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
    failure = mapping(line, key)
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
    counters = mapping(line, "counters")
    view = line.get("view")
    if view is None:
        view = "session" if failure is None else "none"
    if view not in VIEWS:
        raise expected("view", f"one of {', '.join(VIEWS)}", view)
    return Snapshot(
        server=server,
        t=t,
        sessions=sessions,
        own_sessions=count(line, "own_sessions") or 0,
        authenticating=count(line, "authenticating") or 0,
        slots=facts.slots,
        role_limits=facts.role_limits,
        database_limits=facts.database_limits,
        counters=Counters(sessions=count(counters, "sessions"), xact_commit=count(counters, "xact_commit"))
        if counters
        else None,
        refused=count(line, "refused"),
        ping_seconds=number(line, "ping_seconds"),
        probes=tuple(_probe(one, t) for one in objects(line, "probes")),
        deploys=tuple(_deploy(one) for one in objects(line, "deploys")),
        failure=failure,
        refusal=None if failure is not None else read_failure(line, "refusal"),
        view=view,
        privileged=facts.privileged,
        role=facts.role,
        host=_host(mapping(line, "host")),
        pools=None if line.get("pools") is None else tuple(_pool(one) for one in objects(line, "pools")),
        server_version_num=facts.server_version_num,
    )


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
        line["probes"] = [_probe_fields(probe) for probe in snapshot.probes]
    if snapshot.deploys:
        line["deploys"] = [_deploy_fields(deploy) for deploy in snapshot.deploys]
    line["failure"] = _failure_fields(snapshot.failure)
    if snapshot.refusal is not None:
        line["refusal"] = _failure_fields(snapshot.refusal)
    line["view"] = snapshot.view
    if snapshot.pools is not None:
        line["pools"] = [_pool_fields(pool) for pool in snapshot.pools]
    if snapshot.host is not None:
        line["host"] = _host_fields(snapshot.host)
    line["sessions"] = []
    return line


def _failure_fields(failure: PollFailure | None) -> Fields | None:
    if failure is None:
        return None
    fields: Fields = {"reason": failure.reason, "sqlstate": failure.sqlstate, "text": failure.text}
    return {**fields, "by_pooler": True} if failure.by_pooler else fields


# -- what a tick brings beside the sessions ----------------------------------------------------------------------------


def _probe(probe: Fields, t: float) -> ProbeResult:
    endpoint, up = label(probe, "endpoint"), truth(probe, "up")
    if not endpoint or up is None:
        raise Fault("probes: expected objects with endpoint and up")
    at = instant(probe, "at")
    return ProbeResult(
        endpoint=endpoint,
        service=label(probe, "service") or endpoint,
        at=t if at is None else at,
        up=up,
        seconds=number(probe, "seconds") or 0.0,
        status=whole(probe, "status"),
        reason=label(probe, "reason"),
        phases=numbers(probe, "phases"),
        tls_expiry=instant(probe, "tls_expiry"),
        is_home=truth(probe, "home") is not False,
    )


def _probe_fields(probe: ProbeResult) -> Fields:
    line: Fields = {
        "endpoint": probe.endpoint,
        "service": probe.service,
        "at": probe.at,
        "up": probe.up,
        "seconds": probe.seconds,
        "status": probe.status,
        "reason": probe.reason,
    }
    if probe.phases:
        line["phases"] = dict(probe.phases)
    if not probe.is_home:
        line["home"] = False
    return line if probe.tls_expiry is None else line | {"tls_expiry": probe.tls_expiry}


def _deploy(deploy: Fields) -> Deploy:
    service, version, at = label(deploy, "service"), label(deploy, "version"), instant(deploy, "at")
    if not service or not version or at is None:
        raise Fault("deploys: expected objects with service, version and at")
    return Deploy(service=service, version=version, at=at, previous=label(deploy, "previous"))


def _deploy_fields(deploy: Deploy) -> Fields:
    line: Fields = {"service": deploy.service, "version": deploy.version, "at": deploy.at}
    return line if deploy.previous is None else line | {"previous": deploy.previous}


def _pool(pool: Fields) -> PoolerPool:
    database, user = label(pool, "database"), label(pool, "user")
    if database is None or user is None:
        raise Fault("pools: expected objects with database and user")
    # PgBouncer splits the wait into whole seconds and the microseconds beyond.
    seconds, microseconds = number(pool, "maxwait"), number(pool, "maxwait_us")
    return PoolerPool(
        database=database,
        user=user,
        maxwait_seconds=None if seconds is None else seconds + (microseconds or 0.0) / 1e6,
        pool_mode=text(pool, "pool_mode"),
        **{name: count(pool, name) for name in _POOL_COUNTS},
    )


def _pool_fields(pool: PoolerPool) -> Fields:
    line: Fields = {"database": pool.database, "user": pool.user}
    line |= {name: value for name in _POOL_COUNTS if (value := getattr(pool, name)) is not None}
    if pool.maxwait_seconds is not None:
        line["maxwait"], line["maxwait_us"] = divmod(round(pool.maxwait_seconds * 1e6), 1_000_000)
    return line if pool.pool_mode is None else line | {"pool_mode": pool.pool_mode}


def _host(host: Fields) -> HostLoad | None:
    if not host:
        return None
    cpu_ratio, memory_used_ratio = number(host, "cpu_ratio"), number(host, "memory_used_ratio")
    load1, cpu_count = number(host, "load1"), count(host, "cpu_count")
    if cpu_ratio is None or memory_used_ratio is None or load1 is None or cpu_count is None:
        raise Fault("host: expected cpu_ratio, memory_used_ratio, load1 and cpu_count")
    return HostLoad(
        cpu_ratio=cpu_ratio,
        memory_used_ratio=memory_used_ratio,
        load1=load1,
        cpu_count=cpu_count,
        server_processes=whole(host, "server_processes"),
        server_rss_bytes=whole(host, "server_rss_bytes"),
        tcp=wholes(host, "tcp"),
    )


def _host_fields(host: HostLoad) -> Fields:
    return {
        "cpu_ratio": host.cpu_ratio,
        "memory_used_ratio": host.memory_used_ratio,
        "load1": host.load1,
        "cpu_count": host.cpu_count,
        "server_processes": host.server_processes,
        "server_rss_bytes": host.server_rss_bytes,
        "tcp": dict(host.tcp),
    }
