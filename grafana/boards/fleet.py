"""*Fleet*: every server a row, the worst first, and what the fleet as a whole does."""

from boards import looks
from boards.board import Board
from boards.expressions import each, per_second, worst
from boards.panels import Ask, Column, Frame, lines, number, rows, states

UID = "batsignal-fleet"
_OVERVIEW = "/d/batsignal?var-server=${__value.text}&${datasource:queryparam}&${__url_time_range}"


def board() -> Board:
    """Return the dashboard."""
    made = Board(uid=UID, title="BatSignal: fleet", text="Every server a row, the worst first.", since="now-1h")
    _counts(made)
    _servers(made)
    _over_time(made)
    return made


def _severity() -> str:
    """Return 2 for a server with something critical lit, 1 with a warning, 0 dark."""
    critical = f"max by (server) ({each('batsignal_signals', 'server', 'kind', where='severity=`critical`')} > bool 0)"
    warning = f"max by (server) ({each('batsignal_signals', 'server', 'kind', where='severity=`warning`')} > bool 0)"
    return f"clamp_max(2 * {critical} + {warning}, 2)"


def _counts(board: Board) -> None:
    for_all = f"count({each('batsignal_last_tick_timestamp_seconds', 'server')})"
    counts = (
        ("Servers", "Servers that BatSignal watches, of those chosen.", for_all, looks.plain()),
        (
            "Lit: critical",
            "Servers with something lit that wakes a person.",
            f"count({_severity()} == 2) or {for_all} * 0",
            looks.any_is_bad(),
        ),
        (
            "Lit: warning",
            "Servers with nothing critical, and something that waits for the morning.",
            f"count({_severity()} == 1) or {for_all} * 0",
            looks.steps(looks.GOOD, (1, looks.WARNING)),
        ),
        (
            "Do not answer",
            "Servers that gave no answer in the last tick.",
            f"count({each('batsignal_up', 'server')} == 0) or {for_all} * 0",
            looks.any_is_bad(),
        ),
        (
            "Full",
            "Servers without a slot for ordinary roles: alive, and not to be restarted.",
            f"sum({each('batsignal_slots_full', 'server')})",
            looks.any_is_bad(),
        ),
        (
            "Sessions",
            "Slots taken on all chosen servers.",
            f"sum({each('batsignal_connection_slots_used', 'server')})",
            looks.plain(),
        ),
    )
    board.add(
        *(
            number(
                Frame(title=title, text=text, width=4, height=3), Ask(expr=expr), unit="short", steps=steps, decimals=0
            )
            for title, text, expr, steps in counts
        )
    )


def _servers(board: Board) -> None:
    used = each("batsignal_connection_slots_used", "server")
    usable = each("batsignal_connection_slots_usable", "server")
    board.add(
        rows(
            Frame(
                title="Servers, the worst first",
                text="As it is at the end of the chosen time: critical before warning, then by how full. A server's"
                " name leads"
                " to its own dashboard. An empty cell is not known. Used above usable: superusers have taken reserved"
                " slots, too.",
                width=24,
                height=13,
            ),
            Ask(expr=_severity()),
            Ask(expr=f"max by (server, state) ({each('batsignal_server_state', 'server', 'state')} == 1)"),
            Ask(expr=f"{used} / {usable}"),
            Ask(expr=used),
            Ask(expr=usable),
            Ask(expr=f"{each('batsignal_exhaustion_seconds', 'server')} < +Inf"),
            Ask(expr=each("batsignal_blocked_sessions", "server")),
            Ask(expr=f"time() - {each('batsignal_last_tick_timestamp_seconds', 'server')}"),
            Ask(expr=each("batsignal_privileged", "server")),
            columns=(
                Column(field="server", name="Server", width=160, link=("Its dashboard", _OVERVIEW)),
                Column(field="Value #A", name="Signal", mapping=looks.LIT, color=True, width=130),
                Column(field="state", name="State", mapping=looks.STATE, color=True, width=240, wraps=True),
                Column(
                    field="Value #C",
                    name="Full",
                    unit="percentunit",
                    gauge=True,
                    steps=looks.slots_ratio(),
                    width=220,
                    decimals=0,
                ),
                Column(field="Value #D", name="Used", decimals=0, width=80),
                Column(field="Value #E", name="Usable", decimals=0, width=80),
                Column(field="Value #F", name="Time left", unit="s", steps=looks.time_left(), color=True, width=120),
                Column(field="Value #G", name="Wait for locks", decimals=0, width=120),
                Column(field="Value #H", name="Last look", unit="s", decimals=0, width=100),
                Column(
                    field="Value #I",
                    name="Sees all",
                    mapping=looks.words({"1": ("yes", looks.GOOD), "0": ("NO", looks.CRITICAL)}),
                    width=90,
                ),
                Column(field="Value #B"),
            ),
            worst_first=(("Signal", True), ("Full", True)),
            says="No server is watched.",
        )
    )


def _over_time(board: Board) -> None:
    board.add(
        lines(
            Frame(
                title="How full each server is",
                text="The fullest moment between two points. Thresholds are those of BatSignalSaturation.",
                width=12,
                height=9,
            ),
            Ask(
                expr=f"{worst('batsignal_connection_slots_used', 'server')}"
                f" / {each('batsignal_connection_slots_usable', 'server')}",
                legend="{{server}}",
            ),
            unit="percentunit",
            steps=looks.slots_ratio(),
        ),
        lines(
            Frame(
                title="Sessions opened a second, by server",
                text="What the clients of each server do to it; a storm stands out.",
                width=12,
                height=9,
            ),
            Ask(
                expr=per_second("batsignal_sessions_opened_total", "server", own="server, application"),
                legend="{{server}}",
            ),
            unit="cps",
        ),
        heading="Over time",
    )
    critical = worst("batsignal_signals", "server", where='severity="critical"')
    warning = worst("batsignal_signals", "server", where='severity="warning"')
    board.add(
        states(
            Frame(
                title="Lit or dark, by server",
                text="The worst of each server between two points.",
                width=12,
                height=8,
            ),
            Ask(expr=f"clamp_max(2 * clamp_max({critical}, 1) + clamp_max({warning}, 1), 2)", legend="{{server}}"),
            mapping=looks.LIT,
        ),
        states(
            Frame(
                title="Answers",
                text="Whether each server answered at every look between two points.",
                width=12,
                height=8,
            ),
            Ask(expr=worst("batsignal_up", "server", of="min"), legend="{{server}}"),
            mapping=looks.UP,
        ),
    )
