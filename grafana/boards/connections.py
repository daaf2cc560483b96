"""*Connections*: who holds them, in which state, how old they are, how they come and go, and against which limits."""

from boards import looks
from boards.board import Board
from boards.expressions import each, held, named, per_second, worst
from boards.panels import Ask, Column, Frame, lines, number, rows, states

UID = "batsignal-connections"
_TOP = 15


def board() -> Board:
    """Return the dashboard."""
    made = Board(uid=UID, title="BatSignal: connections", text="Who holds the connections, and how they come and go.")
    _who(made)
    _ages(made)
    _churn(made)
    _limits(made)
    _pooler(made)
    return made


def _who(board: Board) -> None:
    board.add(
        lines(
            Frame(
                title="By application and version",
                text="Sessions held, as the mean between two points. An old version that stays, or a new one that"
                " only grows,"
                " is what a bad deploy looks like.",
                width=12,
                height=9,
            ),
            Ask(expr=named(held("application", "version")), legend="{{application}} {{version}}"),
            unit="short",
            stacked=True,
            decimals=1,
        ),
        lines(
            Frame(
                title="By state",
                text="Sessions held in each state. Idle ones cost a slot and do nothing; idle in transaction they"
                " also hold"
                " locks. Without pg_monitor other roles' states are unknown.",
                width=12,
                height=9,
            ),
            Ask(expr=held("state"), legend="{{state}}"),
            unit="short",
            stacked=True,
            decimals=1,
        ),
    )
    usage = "batsignal_connections"
    labels = ("server", "application", "version", "user", "database", "state")
    now = f"sum by (server, application, version, user, database) ({each(usage, *labels)})"
    idle = f"sum by (server, application, version, user, database) ({each(usage, *labels, where='state=~`idle.*`')})"
    board.add(
        rows(
            Frame(
                title="Who holds sessions",
                text=f"The {_TOP} largest holders at the end of the chosen time, and how many of their sessions are"
                f" idle.",
                width=14,
                height=9,
            ),
            Ask(expr=f"topk({_TOP}, {now})"),
            Ask(expr=f"{idle} and topk({_TOP}, {now})"),
            columns=(
                Column(field="application", name="Application", width=150),
                Column(field="version", name="Version", width=100),
                Column(field="user", name="User", width=120),
                Column(field="database", name="Database", width=120),
                Column(field="server", name="Server", width=110),
                Column(field="Value #A", name="Sessions", decimals=0, width=100),
                Column(field="Value #B", name="of them idle", decimals=0, width=110),
            ),
            worst_first=(("Sessions", True),),
            says="No session, or no view of them.",
        ),
        rows(
            Frame(
                title="Client addresses",
                text=f"The {_TOP} addresses that hold most at the end of the chosen time; no address is a Unix socket.",
                width=10,
                height=9,
            ),
            Ask(
                expr=named(
                    f"topk({_TOP}, {each('batsignal_client_connections', 'server', 'client')})", "client", "socket"
                )
            ),
            columns=(
                Column(field="client", name="Client", width=200),
                Column(field="server", name="Server", width=140),
                Column(field="Value", name="Sessions", decimals=0),
            ),
            worst_first=(("Sessions", True),),
            says="No session, or no view of them.",
        ),
    )
    board.add(
        *(
            lines(
                Frame(
                    title=f"By {label}",
                    text=f"Sessions {held_by}. Absent while BatSignal has no view of the server.",
                    width=12,
                    height=8,
                ),
                Ask(
                    expr=named(f"sum by ({label}) ({each(usage, *labels)})", label, nameless), legend=f"{{{{{label}}}}}"
                ),
                unit="short",
                stacked=True,
                decimals=0,
            )
            for label, held_by, nameless in (
                ("user", "of each role", "(unknown)"),
                ("database", "in each database", "(none)"),
            )
        ),
    )


def _ages(board: Board) -> None:
    lived = f"{held('application')} / {_churned('closed')}"
    panels = [
        lines(
            Frame(title=title, text=text, width=6, height=8),
            Ask(
                expr=named(
                    f"time() - min by (application) (min_over_time({metric}{{server=~`$server`}}[$__rate_interval]))"
                ),
                legend="{{application}}",
            ),
            unit="s",
        )
        for title, metric, text in (
            (
                "Oldest session",
                "batsignal_oldest_session_timestamp_seconds",
                "Age of each application's oldest session. Pools that recycle stay under their maximum lifetime.",
            ),
            (
                "Left alone longest",
                "batsignal_longest_idle_since_timestamp_seconds",
                "How long each application's most forgotten session has not been used: a leak's grows with the clock.",
            ),
            (
                "Oldest transaction",
                "batsignal_oldest_transaction_timestamp_seconds",
                "Age of each application's oldest open transaction; absent where none is open.",
            ),
        )
    ]
    board.add(
        *panels,
        lines(
            Frame(
                title="How long a session lives",
                text="Sessions held over sessions closed a second: the mean life, where as many come as go. It runs"
                " away when"
                " nothing is given back; absent while none is closed.",
                width=6,
                height=8,
            ),
            Ask(expr=named(f"{lived} < +Inf"), legend="{{application}}"),
            unit="s",
        ),
        heading="How old",
    )


def _churned(what: str) -> str:
    return per_second(f"batsignal_sessions_{what}_total", "application", own="server, application")


def _churn(board: Board) -> None:
    board.add(
        lines(
            Frame(
                title="Opened a second",
                text="Sessions that came, by application; `unseen` are those too short for a look a second. A storm"
                " is here.",
                width=8,
                height=8,
            ),
            Ask(expr=named(_churned("opened")), legend="{{application}}"),
            unit="cps",
        ),
        lines(
            Frame(
                title="Gained a second",
                text="Sessions opened less those closed, by application. One that stays above nought leaks or grows.",
                width=8,
                height=8,
            ),
            Ask(expr=named(f"{_churned('opened')} - {_churned('closed')}"), legend="{{application}}"),
            unit="cps",
            least=None,
        ),
        lines(
            Frame(
                title="Refused a second",
                text="Refusals that BatSignal learnt of, by reason: its own attempts, and others' where a source tells."
                " Absent until the first one.",
                width=8,
                height=8,
            ),
            Ask(
                expr=per_second("batsignal_connection_refusals_total", "server", "reason", own="server, reason"),
                legend="{{server}}: {{reason}}",
            ),
            unit="cps",
        ),
        heading="How they come and go",
    )


def _limits(board: Board) -> None:
    used = each("batsignal_connection_limit_used", "server", "limit")
    most = each("batsignal_connection_limit", "server", "limit")
    board.add(
        lines(
            Frame(
                title="Slots used and usable",
                text="Slots taken, and what ordinary roles can take: max_connections less the reserved ones."
                " Used above usable: superusers have taken reserved ones, too.",
                width=8,
                height=8,
            ),
            Ask(expr=each("batsignal_connection_slots_used", "server"), legend="{{server}}, used"),
            Ask(expr=each("batsignal_connection_slots_usable", "server"), legend="{{server}}, usable"),
            Ask(expr=each("batsignal_connection_slots_max", "server"), legend="{{server}}, max_connections"),
            unit="short",
            decimals=0,
        ),
        lines(
            Frame(
                title="Limits of roles and databases",
                text="How full each limit is that a role or a database has of its own. Absent where none is set."
                " Thresholds are"
                " those of BatSignalSaturation.",
                width=8,
                height=8,
            ),
            Ask(expr=f"{used} / {most}", legend="{{server}}: {{limit}}"),
            unit="percentunit",
            steps=looks.slots_ratio(),
        ),
        states(
            Frame(
                title="Where the counts come from",
                text="BatSignal's view of each server: its own session, or a way round while no slot is left. No"
                " view means"
                " that all else here stands still.",
                width=8,
                height=4,
            ),
            Ask(expr=f"{each('batsignal_view', 'server', 'view')} == 1", legend="{{server}}: {{view}}"),
            mapping=looks.words({"1": ("in use", looks.GOOD)}),
        ),
        heading="Against which limits",
    )
    board.add(
        states(
            Frame(
                title="What the server says",
                text="What BatSignal's last look or attempt met; anything but `up` is in words in *Fleet*.",
                width=9,
                height=6,
            ),
            Ask(expr=f"{each('batsignal_server_state', 'server', 'state')} == 1", legend="{{server}}: {{state}}"),
            mapping=looks.words({"1": ("so", looks.CALM)}),
        ),
        lines(
            Frame(
                title="TCP sessions on the server's port",
                text="As the host's kernel counts them, by state: also those that PostgreSQL has not let in yet."
                " Absent unless"
                " BatSignal runs on the server's host.",
                width=9,
                height=6,
            ),
            Ask(expr=each("batsignal_server_tcp_sessions", "server", "state"), legend="{{server}}: {{state}}"),
            Ask(expr=each("batsignal_server_processes", "server"), legend="{{server}}: processes of the server"),
            unit="short",
            decimals=0,
        ),
        number(
            Frame(
                title="May see all (pg_monitor)",
                text="Whether BatSignal's role may see other roles' sessions on every chosen server.",
                width=6,
                height=6,
            ),
            Ask(expr="min(batsignal_privileged{server=~`$server`})"),
            unit="none",
            mapping=looks.words({"1": ("yes", looks.GOOD), "0": ("NO: counts by state are wrong", looks.CRITICAL)}),
            says="not known",
        ),
    )


def _pooler(board: Board) -> None:
    pool = ("server", "database", "user")
    clients, servers = "batsignal_pgbouncer_pool_clients", "batsignal_pgbouncer_pool_servers"
    board.add(
        lines(
            Frame(
                title="Clients",
                text="Clients that are served and those that wait. Absent without PgBouncer, and while it does not"
                " answer.",
                width=8,
                height=8,
            ),
            Ask(expr=worst(clients, *pool, "state"), legend="{{database}}/{{user}}: {{state}}"),
            unit="short",
            decimals=0,
        ),
        lines(
            Frame(
                title="Sessions lent",
                text="What the pool's sessions on the server do. All active and none idle, with clients waiting: it"
                " is empty.",
                width=8,
                height=8,
            ),
            Ask(expr=each(servers, *pool, "state"), legend="{{database}}/{{user}}: {{state}}"),
            unit="short",
            stacked=True,
            decimals=0,
        ),
        lines(
            Frame(
                title="Longest wait",
                text="How long the first client in each pool's queue has waited.",
                width=8,
                height=8,
            ),
            Ask(
                expr=worst("batsignal_pgbouncer_pool_wait_seconds", *pool), legend="{{database}}/{{user}} on {{server}}"
            ),
            unit="s",
        ),
        heading="PgBouncer's pools",
    )
