"""Sees a server's sessions from outside: by the titles of its processes, on the host that it runs on.

Owns which processes are looked at and how their titles become `Session`s. It needs no session, no slot and no
password, and so is the last way that is left. It says who is there, from where and whether at work: no application
name, no statement, no instant but the session's begin. What an earlier look through a session knew of the same process
(its names, its exact begin) is kept, for that does not change; what it did then is not.

A process of another server must never be counted: the postmaster is proved first (`host`, `postmaster`).
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import psutil

from batsignal.names import legible
from batsignal.poll.children import PROC, Child, Children, read_line
from batsignal.poll.host import find_postmaster
from batsignal.poll.postmaster import postmaster_at
from batsignal.poll.refusal import Place
from batsignal.poll.rows import Names
from batsignal.poll.titles import Title, prefix_of, read_title, split_names
from batsignal.snapshot import CLIENT_BACKEND, START_TOLERANCE_SECONDS, Session

_Row = tuple[str, Session | None, Session]
"""A title, what an earlier look knew of its session, and the row that was made of both."""

# The kernel counts a process's birth in hundredths of a second.
BIRTH_TOLERANCE_SECONDS = 0.01
# The server's own processes come and go: so often they are told from clients' anew.
UNSEEN_SECONDS = 5.0
# To look for a server that is not shown to be here costs a pass over all processes.
SEARCH_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """What the titles showed at one look.

    `authenticating` hold a slot and have not logged in, `unborn` wait for their client's first word and hold none yet.
    """

    sessions: tuple[Session, ...]
    authenticating: int
    unborn: int


class Processes:
    """The processes of one server. Owned by the look's thread."""

    def __init__(self, *, data_directory: str | None, names: Names, monotonic: Callable[[], float]) -> None:
        self._data_directory = data_directory
        self._names = names
        self._monotonic = monotonic
        self._postmaster: psutil.Process | None = None
        self._proved_by: object = None
        self._search_due = float("-inf")
        self._children = Children(0)
        self._others = 0
        """How many of the children are no clients' at the last look at all of them."""
        self._unseen_due = float("-inf")
        self._prefix: str | None = None
        self._read: dict[Child, tuple[str, Title]] = {}
        self._rows: dict[int, _Row] = {}
        self._last_known: Iterable[Session] = ()
        self._known: Mapping[int, Session] | None = None
        """The sessions of the last look through a session by pid: made once it is needed, which most often is never."""

    # -- the proof -------------------------------------------------------------------------------------------------

    def prove_by_session(self, *, backend_pid: int, postmaster_start: float) -> bool:
        """Find the postmaster through a session of ours; return whether it runs on this host."""
        proof = (backend_pid, postmaster_start)
        if proof != self._proved_by:
            found = find_postmaster(
                backend_pid=backend_pid, postmaster_start=postmaster_start, data_directory=self._data_directory
            )
            self._take(found, proof)
        return self.is_found

    def prove_by_place(self, places: Iterable[Place]) -> bool:
        """Find the postmaster where nobody can be asked; one that a session has proved and that still lives, counts."""
        if self.is_found:
            return True
        now = self._monotonic()
        if now >= self._search_due:
            self._search_due = now + SEARCH_SECONDS
            self._take(postmaster_at(places, self._data_directory), None)
        return self.is_found

    def forget(self) -> None:
        """Forget the proof: the connection string leads elsewhere by now."""
        self._take(None, None)

    @property
    def is_found(self) -> bool:
        return self._postmaster is not None and self._postmaster.is_running()

    def _take(self, postmaster: psutil.Process | None, proof: object) -> None:
        if postmaster is None or postmaster != self._postmaster:
            self._children = Children(0 if postmaster is None else postmaster.pid)
            self._prefix = None
            self._read = {}
            self._unseen_due = float("-inf")
        self._postmaster, self._proved_by = postmaster, proof

    # -- the look --------------------------------------------------------------------------------------------------

    def remember(self, sessions: Iterable[Session]) -> None:
        """Be told what a look through a session showed: the same processes are the same sessions."""
        self._known, self._last_known = None, sessions
        self._rows = {}

    def count_unseen(self, seen: Sequence[Session]) -> tuple[int, int]:
        """Return how many are `authenticating` and `unborn` beside the sessions that were seen; 0 if nobody tells.

        `seen` are all but our own. While there are no more processes than those and the server's own, none is read.
        """
        now = self._monotonic()
        if now < self._unseen_due:
            count = self._children.count()
            if count is not None and count <= len(seen) + self._others + 1:
                return 0, 0
        self._unseen_due = now + UNSEEN_SECONDS
        pids = {session.pid for session in seen}
        titles = self._titles(lambda child: child.pid not in pids, again=("authenticating", "unborn"))
        kinds = [title.kind for _, title in titles.values()]
        self._others = kinds.count("other")
        return kinds.count("authenticating"), kinds.count("unborn")

    def look(self, *, born_before: float) -> Sighting | None:
        """Return the sessions that the titles show; None where none can be read.

        Who was born later (Unix seconds) and is not seen to be logged in is not counted: an attempt of ours that was
        turned away is there for a moment more.
        """
        titles = self._titles(lambda _: True, again=("client", "authenticating", "unborn"))
        if self._prefix is None:
            return None
        self._learn_names({title.names for _, title in titles.values() if title.names is not None})
        told = self._names.told
        if self._known is None:
            self._known = {session.pid: session for session in self._last_known}
        rows: dict[int, _Row] = {}
        authenticating = unborn = 0
        for child, (text, title) in titles.items():
            is_new = child.started >= born_before - BIRTH_TOLERANCE_SECONDS
            if title.kind == "client" and not (is_new and title.state is None):
                rows[child.pid] = self._row(child, text, title, told)
            authenticating += title.kind == "authenticating" and not is_new
            unborn += title.kind == "unborn" and not is_new
        self._rows = rows
        return Sighting(
            sessions=tuple(rows[pid][2] for pid in sorted(rows)), authenticating=authenticating, unborn=unborn
        )

    def _titles(self, wanted: Callable[[Child], bool], *, again: Sequence[str]) -> dict[Child, tuple[str, Title]]:
        """Return the titles of the wanted children; those that were of another kind than `again` do not change."""
        try:
            children = [child for child in self._children.alive() if wanted(child)] if self.is_found else []
        except OSError:
            children = []
        known = self._read
        texts: dict[Child, str] = {}
        for child in children:
            before = known.get(child)
            if before is not None and before[1].kind not in again:
                continue
            with suppress(OSError):  # it ended since the directory was read
                texts[child] = _text(child)
        self._prefix = self._prefix or prefix_of(texts.values())
        if self._prefix is None:
            return {}
        now: dict[Child, tuple[str, Title]] = {}
        for child in children:
            text = texts.get(child)
            if text is None:
                if child in known and known[child][1].kind not in again:
                    now[child] = known[child]
            elif text:  # without one it is gone, and only waited for
                before = known.get(child)
                now[child] = before if before and before[0] == text else (text, read_title(text, self._prefix))
        self._read = now
        return now

    def _learn_names(self, untold: set[str]) -> None:
        """Tell users from databases where spaces leave a doubt: by known ones, until nothing more is learnt."""
        is_learning = True
        while is_learning:
            told, is_learning = self._names.told, False
            for names in list(untold):
                user, database = split_names(names, *told)
                if user is not None and database is not None:
                    untold.discard(names)
                    is_learning = self._names.put_seen(user, database) or is_learning

    def _row(self, child: Child, text: str, title: Title, told: tuple[Collection[str], Collection[str]]) -> _Row:
        known = (self._known or {}).get(child.pid)
        if known is not None and not _is_same(known, child, title):
            known = None
        before = self._rows.get(child.pid)
        if before is not None and before[0] == text and before[1] is known:
            return before
        user, database = split_names(title.names or "", *told)
        session = Session(
            pid=child.pid,
            backend_start=child.started if known is None else known.backend_start,
            state=title.state,
            datname=database if known is None else known.datname,
            usename=user if known is None else known.usename,
            application_name=None if known is None else known.application_name,
            client_addr=title.client_addr if known is None else known.client_addr,
            wait_event_type=title.wait_event_type,
            wait_event=title.wait_event,
            backend_type=CLIENT_BACKEND,
        )
        return text, known, session


def _text(child: Child) -> str:
    return legible(read_line(f"{PROC}/{child.pid}/cmdline").rstrip(b"\0").decode("utf-8", "replace"))


def _is_same(known: Session, child: Child, title: Title) -> bool:
    """Whether a process is the session that was seen before: pids are reused, and rarely by the same user."""
    if not known.is_client or known.backend_start is None:
        return False
    names = f"{known.usename} {known.datname}"
    if known.usename is not None and known.datname is not None and names != title.names:
        return False
    return abs(known.backend_start - child.started) <= START_TOLERANCE_SECONDS
