"""What surrounds the sessions in a tick of a recording, both ways: probes, deploys, a pooler's pools, and the host.

Owns the spelling of their keys and what each may be. Which tick they stand in is `recording_lines`' affair.
"""

from batsignal.record.recording_fields import (
    INT4_MOST,
    Fields,
    each_of,
    expected,
    instant,
    label,
    load,
    missing,
    ratio,
    seconds,
    truth,
    whole,
)
from batsignal.snapshot import Deploy, HostLoad, PoolerPool, ProbeResult

HTTP_STATUS_MOST = 999
# A probe has the daemon's clock, its tick the server's; what is further away than this was made at no such time.
CLOCKS_APART_SECONDS_MOST = 86_400
_POOL_COUNTS = ("cl_active", "cl_waiting", "sv_active", "sv_idle", "sv_used", "sv_tested", "sv_login")


def probe_of(t: float, probe: Fields) -> ProbeResult:
    """Return a probe, made at `t` where it does not say when that can be believed; raises Fault."""
    endpoint, up = _name(probe, "endpoint"), truth(probe, "up")
    if up is None:
        raise missing("up", "true or false")
    at = instant(probe, "at")
    return ProbeResult(
        endpoint=endpoint,
        service=label(probe, "service") or endpoint,
        at=t if at is None or abs(at - t) > CLOCKS_APART_SECONDS_MOST else at,
        up=up,
        seconds=seconds(probe, "seconds") or 0.0,
        status=whole(probe, "status", most=HTTP_STATUS_MOST),
        reason=label(probe, "reason"),
        phases=each_of(probe, "phases", seconds),
        tls_expiry=instant(probe, "tls_expiry"),
        is_home=truth(probe, "home") is not False,
    )


def probe_fields(probe: ProbeResult) -> Fields:
    """Return a probe as it is written."""
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


def _name(fields: Fields, key: str) -> str:
    """Return a text that must be there, and not be empty."""
    name = label(fields, key)
    if name is None:
        raise missing(key, "text")
    if not name:
        raise expected(key, "text", name)
    return name


def deploy_of(deploy: Fields) -> Deploy:
    """Return a deploy; raises Fault."""
    service, version, at = _name(deploy, "service"), _name(deploy, "version"), instant(deploy, "at")
    if at is None:
        raise missing("at", "Unix seconds")
    return Deploy(service=service, version=version, at=at, previous=label(deploy, "previous"))


def deploy_fields(deploy: Deploy) -> Fields:
    """Return a deploy as it is written."""
    line: Fields = {"service": deploy.service, "version": deploy.version, "at": deploy.at}
    return line if deploy.previous is None else line | {"previous": deploy.previous}


def pool_of(pool: Fields) -> PoolerPool:
    """Return a row of `SHOW POOLS`; raises Fault."""
    database, user = label(pool, "database"), label(pool, "user")
    if database is None or user is None:
        raise missing("database" if database is None else "user", "text")
    # PgBouncer splits the wait into whole seconds and the microseconds beyond.
    waited, microseconds = seconds(pool, "maxwait"), seconds(pool, "maxwait_us")
    return PoolerPool(
        database=database,
        user=user,
        maxwait_seconds=None if waited is None else waited + (microseconds or 0.0) / 1e6,
        pool_mode=label(pool, "pool_mode"),
        **{name: whole(pool, name, most=INT4_MOST) for name in _POOL_COUNTS},
    )


def pool_fields(pool: PoolerPool) -> Fields:
    """Return a pool as PgBouncer prints it."""
    line: Fields = {"database": pool.database, "user": pool.user}
    line |= {name: value for name in _POOL_COUNTS if (value := getattr(pool, name)) is not None}
    if pool.maxwait_seconds is not None:
        line["maxwait"], line["maxwait_us"] = divmod(round(pool.maxwait_seconds * 1e6), 1_000_000)
    return line if pool.pool_mode is None else line | {"pool_mode": pool.pool_mode}


def host_of(host: Fields) -> HostLoad | None:
    """Return the load of the host, None where not all of it is said; raises Fault."""
    cpu_ratio, memory_used_ratio = ratio(host, "cpu_ratio"), ratio(host, "memory_used_ratio")
    load1, cpu_count = load(host, "load1"), whole(host, "cpu_count", most=INT4_MOST)
    if cpu_ratio is None or memory_used_ratio is None or load1 is None or cpu_count is None:
        return None  # somebody else's words for a host, or half of ours: unknown
    return HostLoad(
        cpu_ratio=cpu_ratio,
        memory_used_ratio=memory_used_ratio,
        load1=load1,
        cpu_count=cpu_count,
        server_processes=whole(host, "server_processes"),
        server_rss_bytes=whole(host, "server_rss_bytes"),
        tcp=each_of(host, "tcp", whole),
    )


def host_fields(host: HostLoad) -> Fields:
    """Return the load of the host as it is written."""
    return {
        "cpu_ratio": host.cpu_ratio,
        "memory_used_ratio": host.memory_used_ratio,
        "load1": host.load1,
        "cpu_count": host.cpu_count,
        "server_processes": host.server_processes,
        "server_rss_bytes": host.server_rss_bytes,
        "tcp": dict(host.tcp),
    }
