"""*Statements & locks*: which statement holds sessions, who waits for whom, and which transactions were left open."""

from boards import looks
from boards.board import Board
from boards.expressions import SERVER, held, named, worst
from boards.lit import lit_now
from boards.panels import Ask, Column, Frame, lines, rows, states

UID = "batsignal-statements"
_TOP = 20
_KINDS = "query_pileup|lock_pileup|idle_in_transaction"


def board() -> Board:
    """Return the dashboard."""
    made = Board(
        uid=UID,
        title="BatSignal: statements & locks",
        text="Which statement holds sessions, who waits for locks, which transactions stay open.",
    )
    _lit(made)
    _statements(made)
    _locks(made)
    return made


def _lit(board: Board) -> None:
    lit = worst("batsignal_signals", "server", "kind", where=f'kind=~"{_KINDS}", severity="critical"')
    warned = worst("batsignal_signals", "server", "kind", where=f'kind=~"{_KINDS}", severity="warning"')
    board.add(
        lit_now(
            Frame(
                title="Lit because of a statement, a lock or a transaction",
                text="Pile-ups and open transactions that are lit at the end of the chosen time. Of a lock queue,"
                " who blocks.",
                width=24,
                height=5,
            ),
            where=f'kind=~"{_KINDS}"',
        )
    )
    board.add(
        states(
            Frame(
                title="Pile-ups and open transactions over time",
                text="When one of the three was lit. Dark is said in words as well.",
                width=24,
                height=5,
            ),
            Ask(
                expr=f"clamp_max(2 * clamp_max({lit}, 1) + clamp_max({warned}, 1), 2)", legend="{{kind}} on {{server}}"
            ),
            mapping=looks.LIT,
        )
    )


def _statements(board: Board) -> None:
    # The text is joined by hand: the same id has one text, and only this metric carries it.
    peak = f"max by (server, query_id) (max_over_time(batsignal_query_active_sessions{{{SERVER}}}[$__range]))"
    text = f"max by (server, query_id, query) (max_over_time(batsignal_query_info{{{SERVER}}}[$__range]))"
    board.add(
        lines(
            Frame(
                title="Sessions by statement",
                text="Active sessions of the statements that hold most; a statement is there while it runs.",
                width=24,
                height=9,
            ),
            Ask(
                expr=worst("batsignal_query_active_sessions", "server", "query_id"), legend="{{query_id}} on {{server}}"
            ),
            unit="short",
            decimals=0,
        ),
        heading="Statements",
    )
    board.add(
        rows(
            Frame(
                title="Statements that held most",
                text=f"The {_TOP} statements with the most active sessions at once in the chosen time, with their"
                f" text, without"
                " literals.",
                width=24,
                height=9,
            ),
            Ask(expr=f"topk({_TOP}, {text} * on (server, query_id) group_left () {peak})"),
            columns=(
                Column(field="Value", name="Sessions at most", decimals=0, width=140),
                Column(field="server", name="Server", width=110),
                Column(field="query_id", name="Statement", width=200),
                Column(field="query", name="Text", wraps=True),
            ),
            worst_first=(("Sessions at most", True),),
            says="No statement ran at a look.",
        )
    )


def _locks(board: Board) -> None:
    oldest = f"min_over_time(batsignal_oldest_transaction_timestamp_seconds{{{SERVER}}}[$__rate_interval])"
    board.add(
        lines(
            Frame(
                title="Sessions that wait for a lock",
                text="The most at once between two points. A short queue is everyday life; lock_pileup lights when"
                " it grows.",
                width=8,
                height=8,
            ),
            Ask(expr=worst("batsignal_blocked_sessions", "server"), legend="{{server}}"),
            unit="short",
            decimals=0,
        ),
        lines(
            Frame(
                title="Oldest transaction",
                text="Age of each application's oldest open transaction: what it wrote stays locked, and vacuum"
                " waits for it.",
                width=8,
                height=8,
            ),
            Ask(expr=named(f"time() - min by (application) ({oldest})"), legend="{{application}}"),
            unit="s",
        ),
        lines(
            Frame(
                title="Idle in transaction",
                text="Sessions that hold a transaction open and do nothing, by application. Absent while there is"
                " none.",
                width=8,
                height=8,
            ),
            Ask(
                expr=named(held("application", where='state=~"idle in transaction.*"')),
                legend="{{application}}",
            ),
            unit="short",
            stacked=True,
            decimals=1,
        ),
        heading="Locks and transactions",
    )
    board.add(
        lines(
            Frame(
                title="Active sessions by application",
                text="Sessions at work, as the mean between two points; those that wait for a lock are active too.",
                width=12,
                height=8,
            ),
            Ask(expr=named(held("application", where='state="active"')), legend="{{application}}"),
            unit="short",
            stacked=True,
            decimals=1,
        ),
        lines(
            Frame(
                title="Active sessions over all",
                text="Share of sessions that are at work. Low while the slots fill: they are held, not used.",
                width=12,
                height=8,
            ),
            Ask(expr=f"{held('server', where='state=`active`')} / {held('server')}", legend="{{server}}"),
            unit="percentunit",
            most=1,
        ),
    )
