"""Says when there is no way into the database, and why.

A server that is full is not unreachable: it is alive, and saying otherwise gets a healthy database restarted. Those
refusals belong to saturation. A restart or a failover that ends soon is everyday life: it warns, and wakes somebody
only when it lasts.
"""

from collections.abc import Iterable

from batsignal.config import Thresholds
from batsignal.detect import wording
from batsignal.detect.signal import Finding, Subject
from batsignal.snapshot import FailureReason, PollFailure, Snapshot

FULL_REASONS: frozenset[FailureReason] = frozenset({"slots_full", "role_limit", "database_limit"})

# Our own login is at fault: we are blind, and that says nothing about the database or its users.
OWN_FAULT_REASONS: frozenset[FailureReason] = frozenset({"no_database", "auth_failed", "tls_failed"})

_ACTIONS: dict[FailureReason, str] = {
    "refused": "Nothing listens there: check that the server runs and that the address is right.",
    "not_accepting": "The server is starting, recovering or shutting down: wait for it, and read its log.",
    "no_database": "Check the database name in the dsn, and that the database takes connections.",
    "auth_failed": "Check the role, its password and pg_hba.conf. This says nothing about the database's health.",
    "tls_failed": "Check certificates and sslmode. This says nothing about the database's health.",
    "timeout": "The server or the network hangs: check the host, its disks and the way to it.",
    "unreachable": "Check the network, the name of the host and what else the dsn asks for.",
}
# A pooler answers in the server's place: of the server itself nothing is known, and it may be well.
_POOLER_LENDS_NONE = (
    "The pooler in the dsn lends no session: look in its console who holds its pool (SHOW POOLS). The server itself may"
    " be well: look at it directly, and give dsn its own address."
)
_POOLER_REFUSES = (
    "The pooler in the dsn answers in the server's place: look for its words in its log, then at the server behind it."
)
# A code comes from the server itself: the way to it is open.
_REFUSED_BY_CODE = "The server answers, and refuses us in its own words: look for them in its log."


class ReachabilityDetector:
    """Holds failed looks until they mean something."""

    def __init__(self, thresholds: Thresholds) -> None:
        self._limits = thresholds
        self._failing_since: float | None = None
        self._last_answer: float | None = None
        self._looks = 0
        self._lit = False

    def look(self, snapshot: Snapshot) -> Iterable[Finding]:
        """Return one finding while there is no way in."""
        # Where another way shows the sessions: the ordinary one is shut all the same.
        failure = snapshot.met
        if failure is None or failure.reason in FULL_REASONS:
            self._failing_since, self._looks, self._lit = None, 0, False
            self._last_answer = snapshot.t
            return ()
        self._looks += 1
        if self._failing_since is None or self._failing_since > snapshot.t:
            # Nothing has been heard since the last answer: that is when it began, as far as anyone can tell.
            self._failing_since = snapshot.t if self._last_answer is None else min(self._last_answer, snapshot.t)
        lasted = snapshot.t - self._failing_since
        enough = lasted >= self._limits.unreachable_seconds and self._looks >= self._limits.unreachable_looks
        self._lit = self._lit or enough
        if not self._lit:
            return ()
        lasting = lasted >= self._limits.unreachable_critical_seconds
        wakes = failure.reason not in OWN_FAULT_REASONS
        return (
            Finding(
                kind="database_unreachable",
                key=("server",),
                severity="critical" if lasting and wakes else "warning",
                wakes_if_it_lasts=wakes,
                subject=Subject(),
                since=self._failing_since,
                evidence=(
                    f"reason: {failure.reason}" + (f" (SQLSTATE {failure.sqlstate})" if failure.sqlstate else ""),
                    failure.text,
                    f"last answer at {wording.clock_time(self._failing_since)}"
                    if self._last_answer is not None
                    else "it has not answered since the watch began",
                ),
                summary=f"no way into {snapshot.server}: {failure.text}",
                action=_action(failure),
            ),
        )


def _action(failure: PollFailure) -> str:
    if failure.by_pooler and failure.reason == "timeout":
        return _POOLER_LENDS_NONE
    if failure.by_pooler and failure.reason == "unreachable":
        return _POOLER_REFUSES
    if failure.reason == "unreachable" and failure.sqlstate is not None:
        return _REFUSED_BY_CODE
    return _ACTIONS.get(failure.reason, "")
