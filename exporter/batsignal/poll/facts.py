"""What is true of a server for longer than a tick: its slots, our privileges, names, limits and running totals.

Asked rarely, and calmly: a catalog that somebody has locked, or a slow answer, leaves what is known standing and never
costs the look. It reads no sessions; `rows` does.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import psycopg2

from batsignal.poll.guarded import GAVE_UP, INSUFFICIENT_PRIVILEGE
from batsignal.poll.rows import Names, Row
from batsignal.poll.startup_error import server_message
from batsignal.snapshot import Counters, Slots

SETTINGS_SECONDS = 10.0
NAMES_SECONDS = 60.0
# A storm's sessions are too short to be seen: what tells of them is the total of sessions, and soon. Before PostgreSQL
# 15 the totals stand in a file that a process of its own writes when it is asked.
COUNTERS_SECONDS = 2.0
# A look comes some milliseconds early or late: without it, every other asking would wait for a third look.
EARLY_SECONDS = 0.25
COUNTERS_FROM_FILE_SECONDS = 10.0
COUNTERS_IN_MEMORY_VERSION_NUM = 150_000
# After an answer that did not come, or names that turned up in the meantime.
RETRY_SECONDS = 2.0

Ask = Callable[[str, Mapping[str, Any], float], list[Row]]
"""Called with the name of a query, its arguments and a deadline; raises as `GuardedSession.query` does."""


class Facts:
    """The facts as one session tells them; `names` outlive it. Owned by the look's thread."""

    def __init__(self, *, names: Names, ask: Ask, monotonic: Callable[[], float], server_version_num: int) -> None:
        self.slots: Slots | None = None
        self.privileged: bool | None = None
        self.port: int | None = None
        self.role: str | None = None
        self.may_use_reserve = False
        self.counters: Counters | None = None
        self.denied: dict[str, str] = {}
        """What we may not read on this server, by query, and in whose words: names and totals are missing then."""
        self._names = names
        self._ask = ask
        self._monotonic = monotonic
        in_memory = server_version_num >= COUNTERS_IN_MEMORY_VERSION_NUM
        self._counters_seconds = COUNTERS_SECONDS if in_memory else COUNTERS_FROM_FILE_SECONDS
        self._settings_due = self._counters_due = self._names_due = self._names_retry = float("-inf")
        # Sessions outlive their dropped role: what has no name now will have none at the next asking.
        self._nameless: frozenset[tuple[str, int]] = frozenset()

    def refresh(self, deadline: float) -> None:
        """Ask for settings and totals when it is time."""
        now = self._monotonic()
        if now >= self._settings_due:
            rows = self.ask_calmly("settings", {}, deadline)
            self._settings_due = now + (RETRY_SECONDS if rows is None else SETTINGS_SECONDS)
            for most, superuser_reserved, reserved, *ours in rows or []:
                self.privileged, self.port, self.may_use_reserve, self.role = ours
                self.slots = Slots(max=most, superuser_reserved=superuser_reserved, reserved=reserved)
        if now >= self._counters_due and self._names.databases:
            self._counters_due = now + self._counters_seconds - EARLY_SECONDS
            rows = self.ask_calmly("counters", {"databases": list(self._names.databases)}, deadline)
            for sessions, commits in rows or []:
                self.counters = Counters(
                    sessions=None if sessions is None else int(sessions),
                    xact_commit=None if commits is None else int(commits),
                )

    def notice(self, *, hidden: bool) -> None:
        """Take in whether a look showed other roles' sessions: what says otherwise is asked for at the next one.

        That they are hidden counts at once: states that nobody was told must not pass for states.
        """
        if self.privileged is hidden:
            self._settings_due = float("-inf")
            self.privileged = self.privileged and not hidden

    def learn_names(self, rows: Iterable[Row], deadline: float) -> None:
        """Ask for the names of roles and databases: now and then, and soon when a session shows an unknown one."""
        now = self._monotonic()
        lacking, roles = self._names.lacking(rows)
        if now < self._names_due and (lacking <= self._nameless or now < self._names_retry):
            return
        self._names_retry = now + RETRY_SECONDS
        named_roles = self.ask_calmly("roles", {"roles": roles}, deadline)
        named_databases = self.ask_calmly("databases", {}, deadline)
        self._names.put_roles(named_roles)
        self._names.put_databases(named_databases)
        if named_roles is not None and named_databases is not None:
            self._names_due = now + NAMES_SECONDS
            self._nameless = self._names.lacking(rows)[0]

    def ask_calmly(self, query: str, arguments: Mapping[str, Any], deadline: float) -> list[Row] | None:
        """Ask for something a look can do without.

        None when a lock stood in the way, the answer took too long, or somebody has taken the right to read it from us.
        """
        try:
            rows = self._ask(query, arguments, deadline)
        except psycopg2.Error as exc:
            if exc.pgcode == INSUFFICIENT_PRIVILEGE:
                self.denied[query] = server_message(exc.diag.message_primary or "")
            elif exc.pgcode not in GAVE_UP:
                raise
            return None
        self.denied.pop(query, None)
        return rows
