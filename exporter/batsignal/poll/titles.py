r"""What PostgreSQL's processes write over their command line: who they work for, and what they do.

Owns the reading of one title, as `ps` shows it. It is pure: a text in, a value out; whose processes they are is
`processes`' affair. A title is `postgres: `, the server's `cluster_name` if it has one, then for a client's process
`user database address(port) doing`. Everything in it may hold spaces, so it is read from the known ends inward.
Sources: init_ps_display and set_ps_display (ps_status.c), BackendInitialize, PerformAuthentication of 12 to 18.
"""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Literal

PREFIX = "postgres: "

Kind = Literal["client", "authenticating", "unborn", "other"]
"""`authenticating` holds a slot and is not logged in; `unborn` holds none: it waits for its client's first word, or is
turned away right behind it."""

# Every server has one from its start to its end, and nothing stands behind its name.
_CHECKPOINTER = re.compile(r"postgres: (?P<cluster>(?:.*: )?)checkpointer ?")
# The address is the last thing that looks like one: what stands behind it never does.
_CLIENT = re.compile(r"(?P<names>.+) (?P<client>\[local\]|(?P<address>[^\s()]+)\(\d+\))(?: (?P<doing>.*))?")
# Both may hold something that looks like a client's address: their client's, or a database of that name.
_NO_CLIENT = ("walsender ", "autovacuum worker ")
_NOT_LOGGED_IN = frozenset({"authentication", "startup"})
_NO_SLOT_YET = "initializing"
_WAITING, _SYNC_WAITING = " waiting", " waiting for "


@dataclass(frozen=True, slots=True, kw_only=True)
class Title:
    """One title. All but `kind` is None where it is not told; `names` are user and database, not yet told apart."""

    kind: Kind
    names: str | None = None
    client_addr: str | None = None
    state: str | None = None
    wait_event_type: str | None = None
    wait_event: str | None = None


_OTHER, _UNBORN = Title(kind="other"), Title(kind="unborn")


def prefix_of(titles: Iterable[str]) -> str | None:
    """Return how every title of a server begins, read off its checkpointer's; None where none is shown.

    >>> prefix_of(["postgres: 15/main: checkpointer ", "postgres: 15/main: web shop 10.0.0.4(4711) idle"])
    'postgres: 15/main: '
    """
    for title in titles:
        match = _CHECKPOINTER.fullmatch(title)
        if match is not None:
            return PREFIX + match["cluster"]
    return None


def read_title(title: str, prefix: str) -> Title:
    """Return what a title says; with `update_process_title` off it ends behind the address, and no state is known.

    >>> read_title("postgres: web shop 10.0.0.4(4711) UPDATE waiting", "postgres: ")
    Title(kind='client', names='web shop', client_addr='10.0.0.4', state='active', wait_event_type='Lock', \
wait_event=None)
    >>> read_title("postgres: walsender standby 10.0.0.5(4711) streaming 0/3000148", "postgres: ").kind
    'other'
    """
    if not title.startswith(PREFIX):
        return _UNBORN  # it shows the postmaster's own command line still
    if not title.startswith(prefix) or title.startswith(_NO_CLIENT, len(prefix)):
        return _OTHER
    match = _CLIENT.fullmatch(title, len(prefix))
    if match is None:
        return _OTHER
    doing = (match["doing"] or "").strip()
    if doing == _NO_SLOT_YET:
        return _UNBORN
    if doing in _NOT_LOGGED_IN:
        return Title(kind="authenticating", names=match["names"], client_addr=match["address"])
    state, wait_event_type, wait_event = _doing(doing)
    return Title(
        kind="client",
        names=match["names"],
        client_addr=match["address"],
        state=state,
        wait_event_type=wait_event_type,
        wait_event=wait_event,
    )


def _doing(doing: str) -> tuple[str | None, str | None, str | None]:
    """Return state, wait_event_type and wait_event in the view's words.

    >>> _doing("idle in transaction"), _doing("CREATE TABLE"), _doing("COMMIT waiting for 0/3000148"), _doing("")
    (('idle in transaction', None, None), ('active', None, None), ('active', 'IPC', 'SyncRep'), (None, None, None))
    """
    if not doing:
        return None, None, None
    if doing.startswith("idle"):
        return doing, None, None
    if _SYNC_WAITING in doing:
        return "active", "IPC", "SyncRep"
    return "active", "Lock" if doing.endswith(_WAITING) else None, None


def split_names(names: str, roles: Collection[str], databases: Collection[str]) -> tuple[str | None, str | None]:
    """Return user and database; None for both where spaces in them leave more than one reading.

    >>> split_names("web shop", (), ()), split_names("a b x y", (), ()), split_names("a b x y", {"a b"}, ())
    (('web', 'shop'), (None, None), ('a b', 'x y'))
    """
    words = names.split(" ")
    readings = [(" ".join(words[:cut]), " ".join(words[cut:])) for cut in range(1, len(words))]
    known = [one for one in readings if one[0] in roles and one[1] in databases]
    known = known or [one for one in readings if one[0] in roles or one[1] in databases]
    candidates = known or readings
    return candidates[0] if len(candidates) == 1 else (None, None)
