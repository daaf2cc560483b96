"""The board as Prometheus metric families: which series exist, what they are called, and when they are absent.

Pure: a board in, families out. Missing is not zero: what the last look could not see has no series. Labels come from
closed or capped sets (the tally caps them); the only text of a statement is in `batsignal_query_info`.
"""

import math
from collections.abc import Iterable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from batsignal.detect.signal import KINDS, SEVERITIES, Signal
from batsignal.expose.holder_families import holder_families
from batsignal.record.board import Board, ServerBoard
from batsignal.record.tally import Histogram
from batsignal.snapshot import FAILURE_REASONS, VIEWS

STATES = ("up", *FAILURE_REASONS)
_WHO = (
    "kind",
    "severity",
    "application",
    "version",
    "database",
    "user",
    "client",
    "query_id",
    "endpoint",
    "pool",
    "limit",
)

POOLS_SHOWN = 100
POOL_SERVER_STATES = ("sv_active", "sv_idle", "sv_used", "sv_tested", "sv_login")

# Labels that the alert rules drop by `max by`, and that may therefore follow what becomes known.
_MOVING = frozenset({"version", "client"})


def server_families(server: ServerBoard) -> Iterator[Metric]:
    """Yield every family of one server."""
    yield from _reach(server)
    yield from _slots(server)
    yield from _sessions(server)
    yield from holder_families(server)
    yield from _statements(server)
    yield from _signals(server)
    yield from _pools(server)
    yield from _host(server)
    yield from _pollers(server)


def daemon_families(board: Board) -> Iterator[Metric]:
    """Yield the families that belong to no server: the daemon itself, endpoints and deploys."""
    yield _gauge("batsignal_build_info", "The running version; always 1.", ("version",), [((board.version,), 1)])
    yield _gauge(
        "batsignal_config_last_reload_successful",
        "Whether the last read of the configuration succeeded; on 0 the old one is in force.",
        (),
        [((), float(board.config_reload_ok))],
    )
    yield _gauge(
        "batsignal_config_last_reload_success_timestamp_seconds",
        "When the configuration in force was read.",
        (),
        [((), board.config_reload_at)],
    )
    yield _gauge(
        "batsignal_web_config_last_reload_successful",
        "Whether what stands in the web config and its certificates is in force; on 0 what was there before is.",
        (),
        [((), float(board.web_config_error is None))],
    )
    yield from _endpoints(board)
    yield _gauge(
        "batsignal_deploy_timestamp_seconds",
        "When a version of a service began to run; absent where nobody saw or told of it.",
        ("service", "version"),
        # The newest wins: a version that was rolled back to has been deployed twice.
        {(deploy.service, deploy.version): deploy.at for deploy in board.deploys}.items(),
    )


def _reach(server: ServerBoard) -> Iterator[Metric]:
    yield _gauge(
        "batsignal_up",
        "Whether a query was answered in the last tick; 0 once the last answer is older than 3 intervals.",
        ("server",),
        [((server.name,), float(server.up))],
    )
    yield _gauge(
        "batsignal_server_state",
        "What our own last look met: one state is 1.",
        ("server", "state"),
        [((server.name, state), float(state == server.state)) for state in STATES],
    )
    yield _gauge(
        "batsignal_view",
        "Where the counts come from now: one view is 1.",
        ("server", "view"),
        [((server.name, view), float(view == server.view)) for view in VIEWS],
    )
    privileged = server.answered.privileged if server.answered else None
    yield _gauge(
        "batsignal_privileged",
        "Whether our role may see other roles' sessions (pg_monitor); on 0 counts by state are not to be trusted."
        " Absent until the server answered once.",
        ("server",),
        [] if privileged is None else [((server.name,), float(privileged))],
    )
    yield _counter(
        "batsignal_connection_refusals",
        "Refused connections that we learnt of, by reason.",
        ("server", "reason"),
        [((server.name, reason), count) for reason, count in sorted(server.tally.refusals.items())],
    )
    yield _histogram(
        "batsignal_ping_seconds", "Round trip of the cheapest query, once a tick.", server, server.tally.ping
    )


def _slots(server: ServerBoard) -> Iterator[Metric]:
    seen = server.answered
    slots = seen.slots if seen else None
    name = (server.name,)
    yield _gauge(
        "batsignal_slots_full",
        "Whether no slot is left for an ordinary role, by whatever evidence.",
        ("server",),
        [(name, float(server.slots_full))],
    )
    yield _gauge(
        "batsignal_connection_slots_max",
        "max_connections. Absent until the server answered once.",
        ("server",),
        [(name, slots.max)] if slots else [],
    )
    yield _gauge(
        "batsignal_connection_slots_usable",
        "Slots that ordinary roles can take: max_connections less the reserved ones.",
        ("server",),
        [(name, slots.usable)] if slots else [],
    )
    yield _gauge(
        "batsignal_connection_slots_used",
        "Slots taken now, our own included. Absent while the last look failed.",
        ("server",),
        [(name, server.snapshot.used)] if server.seen else [],
    )
    yield _histogram(
        "batsignal_connection_slots_used_ratio",
        "Used slots over usable ones, observed once a tick.",
        server,
        server.tally.used_ratio,
    )
    exhaustion = server.exhaustion_seconds if server.seen else None
    yield _gauge(
        "batsignal_exhaustion_seconds",
        "When the slots run out if things go on as they do; +Inf when nothing grows, absent when nothing is known.",
        ("server",),
        [] if exhaustion is None else [(name, exhaustion)],
    )


def _sessions(server: ServerBoard) -> Iterator[Metric]:
    tally = server.tally
    fresh = server.seen
    yield _gauge(
        "batsignal_connections",
        "Client sessions now, without our own. An unnamed application is the empty label. Absent while the last look"
        " failed.",
        ("server", "database", "user", "application", "version", "state"),
        [
            ((server.name, one.database, one.user, one.application, one.version, one.state), one.sessions)
            for one in (tally.usage or ())
            if fresh
        ],
    )
    yield _gauge(
        "batsignal_client_connections",
        "Client sessions now by client address; the empty label is a Unix socket. Absent while the last look failed.",
        ("server", "client"),
        [((server.name, client), count) for client, count in (tally.clients or ()) if fresh],
    )
    for name, text, totals in (
        ("opened", "Sessions seen to open; `unseen` are those too short for a look a second.", tally.opened),
        ("closed", "Sessions seen to close; `unseen` are those too short for a look a second.", tally.closed),
    ):
        yield _counter(
            f"batsignal_sessions_{name}",
            text,
            ("server", "application"),
            [((server.name, application), count) for application, count in sorted(totals.items())],
        )
    yield _counter(
        "batsignal_session_seconds",
        "Time that sessions spent in each state, added up once a tick: no spike between two scrapes is lost.",
        ("server", "application", "version", "state"),
        [((server.name, *key), seconds) for key, seconds in sorted(tally.session_seconds.items())],
    )
    yield _gauge(
        "batsignal_blocked_sessions",
        "Sessions that wait for a lock now. Absent while the last look failed.",
        ("server",),
        [((server.name,), tally.blocked)] if fresh and tally.blocked is not None else [],
    )


def _statements(server: ServerBoard) -> Iterator[Metric]:
    shown = (server.tally.statements or ()) if server.seen else ()
    yield _gauge(
        "batsignal_query_active_sessions",
        "Active sessions of the statements that hold most; a statement is present while it runs.",
        ("server", "query_id"),
        [((server.name, one.query_id), one.sessions) for one in shown],
    )
    yield _gauge(
        "batsignal_query_info",
        "The normalised text of a statement in batsignal_query_active_sessions; always 1.",
        ("server", "query_id", "query"),
        [((server.name, one.query_id, one.query), 1) for one in shown],
    )


def _signals(server: ServerBoard) -> Iterator[Metric]:
    lit = server.signals
    counts = {(kind, severity): 0 for kind in KINDS for severity in SEVERITIES}
    for signal in lit:
        counts[signal.finding.kind, signal.finding.severity] += 1
    yield _gauge(
        "batsignal_signals",
        "Lit signals by kind and severity, 0 when dark.",
        ("server", "kind", "severity"),
        [((server.name, *key), count) for key, count in counts.items()],
    )
    labels = ("server", *_WHO)
    yield _gauge(
        "batsignal_signal",
        "1 while a signal is lit, absent otherwise; an unknown or mixed label is empty.",
        (*labels, "deploy"),
        [((server.name, *_who(signal), _deploy(signal)), 1) for signal in lit],
    )
    yield _gauge(
        "batsignal_signal_sessions",
        "Sessions a lit signal is about.",
        labels,
        [((server.name, *_who(signal)), signal.finding.sessions) for signal in lit],
    )
    yield _gauge(
        "batsignal_signal_since_timestamp_seconds",
        "The onset of a lit signal.",
        labels,
        [((server.name, *_who(signal)), signal.finding.since) for signal in lit],
    )
    yield _gauge(
        "batsignal_signal_healthy",
        "Whether the database itself is well while a signal is lit: on 1 do not restart it. Absent when unknown.",
        labels,
        [
            ((server.name, *_who(signal)), float(signal.finding.database_healthy))
            for signal in lit
            if signal.finding.database_healthy is not None
        ],
    )


def _who(signal: Signal) -> tuple[str, ...]:
    """Return the labels in the order of `_WHO`: what an alert is made of as at the raise, the rest as known now."""
    found = signal.finding
    return (
        found.kind,
        found.severity,
        *(getattr(found.subject if name in _MOVING else signal.raised_as, name) or "" for name in _WHO[2:]),
    )


def _deploy(signal: Signal) -> str:
    deploy = signal.finding.deploy
    return f"{deploy.service}@{deploy.version}" if deploy else ""


def _host(server: ServerBoard) -> Iterator[Metric]:
    host = server.snapshot.host
    name = (server.name,)
    numbers: tuple[tuple[str, str, float | None], ...] = ()
    if host is not None:
        numbers = (
            ("batsignal_host_cpu_ratio", "Processor time in use on the server's host, 0 to 1.", host.cpu_ratio),
            ("batsignal_host_memory_used_ratio", "Memory in use on the server's host, 0 to 1.", host.memory_used_ratio),
            ("batsignal_host_load1", "Load of the server's host over one minute.", host.load1),
            ("batsignal_host_cpus", "Processors of the server's host.", host.cpu_count),
            ("batsignal_server_processes", "Processes of the server.", host.server_processes),
            ("batsignal_server_resident_bytes", "Memory of the server's processes.", host.server_rss_bytes),
        )
    for metric, text, value in numbers:
        samples = [] if value is None else [(name, value)]
        yield _gauge(metric, f"{text} Absent unless the server runs on this host.", ("server",), samples)
    yield _gauge(
        "batsignal_server_tcp_sessions",
        "TCP sessions on the server's port by state. Absent unless the server runs on this host.",
        ("server", "state"),
        [((server.name, state), count) for state, count in sorted(host.tcp.items())] if host else [],
    )


def _pools(server: ServerBoard) -> Iterator[Metric]:
    # Those with the longest queues, then the largest: what nobody waits for may share the rest.
    pools = sorted(server.snapshot.pools or (), key=lambda pool: (-(pool.cl_waiting or 0), -(pool.sv_active or 0)))
    shown = [(pool, (server.name, pool.database, pool.user)) for pool in pools[:POOLS_SHOWN]]
    labels = ("server", "database", "user")
    for what, text, states in (
        ("clients", "Clients of a PgBouncer pool by state", ("cl_active", "cl_waiting")),
        ("servers", "Server sessions of a PgBouncer pool by state", POOL_SERVER_STATES),
    ):
        yield _gauge(
            f"batsignal_pgbouncer_pool_{what}",
            f"{text}. Absent without PgBouncer, and while it does not answer.",
            (*labels, "state"),
            [
                ((*who, state.partition("_")[2]), count)
                for pool, who in shown
                for state in states
                if (count := getattr(pool, state)) is not None
            ],
        )
    yield _gauge(
        "batsignal_pgbouncer_pool_wait_seconds",
        "How long the first client in a PgBouncer pool's queue has waited. Absent as the others.",
        labels,
        [(who, pool.maxwait_seconds) for pool, who in shown if pool.maxwait_seconds is not None],
    )


def _pollers(server: ServerBoard) -> Iterator[Metric]:
    seconds = sorted(server.snapshot.poll_seconds.items())
    snapshot = server.snapshot
    failed = {"sessions"} if snapshot.failure is not None else set()
    failed |= {"pgbouncer"} if snapshot.pools is None else set()
    yield _gauge(
        "batsignal_poll_success",
        "Whether a poller's last look succeeded.",
        ("server", "poller"),
        [((server.name, poller), float(poller not in failed)) for poller, _ in seconds],
    )
    yield _gauge(
        "batsignal_poll_duration_seconds",
        "How long a poller's last look took.",
        ("server", "poller"),
        [((server.name, poller), duration) for poller, duration in seconds],
    )
    yield _counter(
        "batsignal_tick_errors",
        "Ticks that a bug ended; the log has the traceback.",
        ("server",),
        [((server.name,), server.tick_errors)],
    )
    yield _gauge(
        "batsignal_last_tick_timestamp_seconds",
        "When the last tick ended, by the daemon's clock.",
        ("server",),
        [((server.name,), server.ticked_at)],
    )


def _endpoints(board: Board) -> Iterator[Metric]:
    endpoints = [one for one in board.endpoints.values() if one.last is not None]
    labels = ("endpoint", "service")
    yield _gauge(
        "batsignal_endpoint_up",
        "Whether the last probe of a health endpoint succeeded. Absent until the first one ended.",
        labels,
        [((one.endpoint, one.service), float(one.last.up)) for one in endpoints if one.last],
    )
    duration = HistogramMetricFamily(
        "batsignal_endpoint_duration_seconds", "How long a probe took, whether it succeeded or not.", labels=labels
    )
    for one in endpoints:
        _observe(duration, (one.endpoint, one.service), one.durations)
    yield duration
    yield _gauge(
        "batsignal_endpoint_phase_seconds",
        "The parts of the last probe; a part that was not reached is absent.",
        (*labels, "phase"),
        [
            ((one.endpoint, one.service, phase), seconds)
            for one in endpoints
            if one.last
            for phase, seconds in sorted(one.last.phases.items())
        ],
    )
    yield _gauge(
        "batsignal_endpoint_tls_expiry_timestamp_seconds",
        "When the certificate of a health endpoint expires. Absent without TLS.",
        labels,
        [
            ((one.endpoint, one.service), one.last.tls_expiry)
            for one in endpoints
            if one.last and one.last.tls_expiry is not None
        ],
    )


Samples = Iterable[tuple[tuple[str, ...], float]]


def _gauge(name: str, text: str, labels: tuple[str, ...], samples: Samples) -> Metric:
    family = GaugeMetricFamily(name, text, labels=labels)
    for values, value in samples:
        family.add_metric([_label(one) for one in values], value)
    return family


def _counter(name: str, text: str, labels: tuple[str, ...], samples: Samples) -> Metric:
    family = CounterMetricFamily(name, text, labels=labels)
    for values, value in samples:
        family.add_metric([_label(one) for one in values], value)
    return family


def _histogram(name: str, text: str, server: ServerBoard, histogram: Histogram) -> Metric:
    family = HistogramMetricFamily(name, text, labels=("server",))
    _observe(family, (server.name,), histogram)
    return family


def _observe(family: HistogramMetricFamily, labels: tuple[str, ...], histogram: Histogram) -> None:
    buckets, running = [], 0
    for bound, count in zip((*histogram.bounds, math.inf), histogram.counts, strict=True):
        running += count
        buckets.append(("+Inf" if math.isinf(bound) else repr(float(bound)), running))
    family.add_metric([_label(one) for one in labels], buckets, histogram.total)


def _label(value: str) -> str:
    """Return a label value that can be encoded, whatever a name is made of."""
    return value if value.isascii() else value.encode("utf-8", "replace").decode("utf-8")
