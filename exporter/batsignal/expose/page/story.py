"""What the page tells, before it is drawn: the board turned into a headline, its details and the rows below.

Owns the order of importance (lit, then what cannot be seen, then quiet): quiet is only said of servers that answer.
What is said of one signal is `lit`, of one server `cards`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from batsignal.expose.page import wording
from batsignal.expose.page.cards import ServerCard, read_server, with_chart
from batsignal.expose.page.lit import Lit, read_signal
from batsignal.record.board import Board, PastIncident
from batsignal.record.endpoint_tally import EndpointTally
from batsignal.snapshot import Deploy
from batsignal.spelling import count, taken

Mood = Literal["lit", "blind", "starting", "quiet"]

DEPLOYS_SHOWN = 8
# Of a large fleet the worst have a card of their own; all stand in the list.
CARDS_SHOWN = 6
REASONS_SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """The whole page. `state` changes when the state does, and with no number: what a change is told by.

    `are_kept` says whether incidents have pages of their own: not where nothing is kept on disk.
    """

    mood: Mood
    severity: str
    state: str
    title: str
    headline: str
    detail: tuple[str, ...]
    hero: Lit | None
    others: tuple[Lit, ...]
    servers: tuple[ServerCard, ...]
    endpoints: tuple[EndpointTally, ...]
    deploys: tuple[Deploy, ...]
    incidents: tuple[PastIncident, ...]
    are_kept: bool
    config_error: str | None
    version: str
    started_at: float


def tell(board: Board, now: float, runbooks: frozenset[str]) -> Story:
    """Return what the page says of this board at this moment."""
    lit = [read_signal(signal, board.servers.get(signal.server), now, runbooks) for signal in board.signals]
    cards = sorted((read_server(name, server) for name, server in board.servers.items()), key=lambda card: card.urgency)
    shown = (with_chart(card, board.servers[card.name], board.deploys) for card in cards[:CARDS_SHOWN])
    servers = (*shown, *cards[CARDS_SHOWN:])
    mood, headline, detail = _verdict(lit, servers)
    return Story(
        mood=mood,
        severity=lit[0].severity if lit else "none",
        state=" ".join([mood, *(f"{one.id}:{one.severity}" for one in lit)]) if lit else f"{mood} {headline}",
        title=f"{'LIT: ' if lit else ''}{headline} \N{MIDDLE DOT} BatSignal",
        headline=headline,
        detail=detail,
        hero=lit[0] if lit else None,
        others=tuple(lit[1:]),
        servers=servers,
        endpoints=tuple(sorted(board.endpoints.values(), key=_is_up)),
        deploys=tuple(sorted(board.deploys, key=lambda deploy: deploy.at, reverse=True)[:DEPLOYS_SHOWN]),
        incidents=board.incidents,
        are_kept=board.store is not None,
        config_error=board.web_config_error
        if board.config_reload_ok
        else board.config_reload_error or "no reason given",
        version=board.version,
        started_at=board.started_at,
    )


def _is_up(tally: EndpointTally) -> bool:
    return tally.last is not None and tally.last.up


def _verdict(lit: list[Lit], servers: tuple[ServerCard, ...]) -> tuple[Mood, str, tuple[str, ...]]:
    """Return mood, headline and the lines below it; quiet is said only when nothing stands against it."""
    if lit:
        return "lit", lit[0].summary, ()
    if not servers:
        return "blind", "No server to watch", ("The config names no server.",)
    return _unseen(servers) or ("quiet", "All quiet", (_quiet_detail(servers),))


def _unseen(servers: tuple[ServerCard, ...]) -> tuple[Mood, str, tuple[str, ...]] | None:
    """Return why a dark signal says nothing, the worst reason first; None when everything is seen."""
    down = [card for card in servers if card.tone == "bad" and not card.seen]
    if down:
        more = len(down) - REASONS_SHOWN
        reasons = tuple(f"{card.name}: {card.state}." for card in down[:REASONS_SHOWN])
        return "blind", f"Cannot see {_names(down)}", (*reasons, *([f"and {more} more servers."] if more > 0 else []))
    unprivileged = [card for card in servers if card.unprivileged]
    if unprivileged:
        return "blind", f"Seeing {_names(unprivileged)} only in part", ("No signal is lit, but one might be missed.",)
    outside = [card for card in servers if card.tone == "bad" and not card.full]
    if outside:
        return (
            "blind",
            f"Seeing {_names(outside)} only from outside",
            tuple(f"{card.name}: {card.state}." for card in outside),
        )
    full = [card for card in servers if card.tone == "bad"]
    if full:
        return "blind", f"No slot left on {_names(full)}", ("The server is full but alive: do not restart it.",)
    waiting = [card for card in servers if card.tone == "waiting"]
    if waiting:
        return "starting", "Taking the first look", (f"Waiting for {_names(waiting)}.",)
    return None


def _names(cards: Iterable[ServerCard]) -> str:
    """Return the names of servers, of many the first few."""
    names = [card.name for card in cards]
    return wording.listed(names)


def _quiet_detail(servers: tuple[ServerCard, ...]) -> str:
    watched = f"{count(len(servers), 'server')} watched"
    known = [(card.used, card.usable) for card in servers if card.used is not None and card.usable is not None]
    if not known:
        return f"{watched}, nobody holds too much."
    usable = sum(most for _, most in known)
    reserved = sum(max(used - most, 0) for used, most in known)
    # One server's reserved slots are no other's.
    slots = taken(sum(min(pair) for pair in known), usable) + (f" (+{reserved} reserved)" if reserved else "")
    return f"{watched}, {slots} slots taken, nobody holds too much."
