"""How a session of ours begins: who answers, and what must hold so that it is a polite guest.

Owns the first words on a new session: the server's identity, and the settings under which everything is asked. Behind a
pooler no setting may stay: the session there is lent to applications between our statements, and one of theirs once
found itself read-only, with our timeout and our search path. So there the settings go with each statement, and end with
it. It must not look at anything else than the session.
"""

from dataclasses import dataclass

import psycopg2

from batsignal.poll.guarded import GuardedSession
from batsignal.poll.queries import OLDEST_MAJOR, sql

# The server ends a statement of ours a little sooner than we stop waiting for it.
STATEMENT_TIMEOUT_MS = 900
# What a look asks beside its own statement stands behind locks now and then, several of them in one look.
LOCK_TIMEOUT_MS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """Who answers on a session: the backend, its server, and whether a pooler stands between."""

    pid: int
    server_version_num: int
    postmaster_start: float
    is_pooled: bool


def introduce(session: GuardedSession, deadline: float) -> Host:
    """Say the first words on a session that has just been opened, by `deadline` (monotonic seconds).

    Raises as `GuardedSession.query` does, and psycopg2.NotSupportedError for a server that is too old.
    """
    pid, version, postmaster_start = session.query(sql("identity", OLDEST_MAJOR * 10000), {}, deadline)[0]
    if version < OLDEST_MAJOR * 10000:
        raise psycopg2.NotSupportedError(f"PostgreSQL {version // 10000} is too old: {OLDEST_MAJOR} or newer is needed")
    timeouts = {"statement_timeout_ms": STATEMENT_TIMEOUT_MS, "lock_timeout_ms": LOCK_TIMEOUT_MS}
    # A pooler makes up the pid that it tells a client.
    is_pooled = pid != session.told_pid
    if is_pooled:
        session.precede_each(sql("pooled", version), timeouts)
    else:
        session.query(sql("session", version), timeouts, deadline)
    return Host(pid=pid, server_version_num=version, postmaster_start=postmaster_start, is_pooled=is_pooled)
