"""A process that holds database sessions for a measurement, told what to do by lines on its standard input.

    open COUNT DSN          opens that many sessions, each used once
    leak PER_SECOND DSN     from now on takes sessions one by one, uses each once, and never gives one back
    pile PER_SECOND DSN     the same, but each runs one statement that does not end
    queue PER_SECOND DSN    the same, but each reads the table `queue`, which somebody else has locked
    storm PER_SECOND DSN    the same, but each is given back after 3 s; so many that not all find a slot
    work                    from now on every open session runs a small statement each second, with new literals
    held                    answers how many sessions are open or were taken, and how many were refused

Each line is answered by one that begins with `ok`. It ends, and its sessions with it, when its input ends.
"""

import itertools
import sys
import threading
import time
from typing import Any

import psycopg2

STATEMENTS = {
    "leak": None,
    "pile": "SELECT relname FROM pg_class, pg_sleep(3600) WHERE relname LIKE '%x%' ORDER BY relname",
    "queue": "SELECT count(*) FROM queue",
    "storm": "SELECT count(*) FROM pg_class, pg_sleep(3) WHERE relpages > 1",
}


class Sessions:
    """What is open."""

    def __init__(self) -> None:
        self.open: list[Any] = []
        self.lost: list[Any] = []
        self.refused = 0

    def take(self, dsn: str) -> Any:
        """Open a session and use it once."""
        session = psycopg2.connect(dsn)
        session.autocommit = True
        session.cursor().execute("SELECT count(*) FROM pg_class WHERE relpages > 1")
        return session

    def work(self) -> None:
        """Spread one statement a second for each session evenly over the second, for ever."""
        for turn in itertools.count():
            began = time.monotonic()
            for index, session in enumerate(self.open):
                time.sleep(max(began + index / len(self.open) - time.monotonic(), 0))
                session.cursor().execute(f"SELECT {turn} + {index} AS total, 'order {turn}-{index}' AS label")
            time.sleep(max(began + 1.0 - time.monotonic(), 0))

    def lose(self, kind: str, per_second: float, dsn: str) -> None:
        """Take one session after the other, as that kind of incident does; one that is refused is counted."""
        statement = STATEMENTS[kind]
        began = time.monotonic()
        for turn in itertools.count(1):
            time.sleep(max(began + turn / per_second - time.monotonic(), 0))
            if statement is None:
                self._lose(dsn, None, kept=True)
            else:
                arguments = {"dsn": dsn, "statement": statement, "kept": kind != "storm"}
                threading.Thread(target=self._lose, kwargs=arguments, daemon=True).start()

    def _lose(self, dsn: str, statement: str | None, *, kept: bool) -> None:
        try:
            session = self.take(dsn) if statement is None else psycopg2.connect(dsn)
        except psycopg2.OperationalError:
            self.refused += 1
            return
        self.lost.append(session)
        if statement is not None:
            session.cursor().execute(statement)
        if not kept:
            session.close()


def main() -> None:
    """Obey until the input ends."""
    sessions = Sessions()
    for line in sys.stdin:
        command, *arguments = line.split()
        answer = ""
        if command == "open":
            count, dsn = arguments
            sessions.open += [sessions.take(dsn) for _ in range(int(count))]
        elif command == "work":
            threading.Thread(target=sessions.work, daemon=True).start()
        elif command in STATEMENTS:
            per_second, dsn = arguments
            threading.Thread(target=sessions.lose, args=(command, float(per_second), dsn), daemon=True).start()
        elif command == "held":
            answer = f"{len(sessions.open) + len(sessions.lost)} {sessions.refused}"
        print("ok", answer, flush=True)


if __name__ == "__main__":
    main()
