"""Puts the detectors together: who looks, and what is said to a person.

A new kind is one module and one line in `Judge`. Causes come before symptoms (`causes`): what a lit cause explains is
silenced and counts as superseded by it. The verdict on the database's health says what the incident is *not*.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from batsignal.config import Thresholds
from batsignal.detect import storm_words
from batsignal.detect.blame import Blame, blame
from batsignal.detect.blocking import Blocking
from batsignal.detect.causes import ENDPOINTS, Causes
from batsignal.detect.counting import Counting
from batsignal.detect.endpoints import EndpointDetector
from batsignal.detect.health import LOCK_KINDS, Health, HealthWatch, is_full
from batsignal.detect.leaks import LeakDetector
from batsignal.detect.locks import LockDetector
from batsignal.detect.memory import Memory, Remembering
from batsignal.detect.pileups import PileupDetector
from batsignal.detect.poolers import PoolerDetector
from batsignal.detect.reachability import ReachabilityDetector
from batsignal.detect.saturation import SaturationDetector
from batsignal.detect.signal import DeployRef, Finding, Key, Kind
from batsignal.detect.slowness import SlownessDetector
from batsignal.detect.starvation import StarvationDetector
from batsignal.detect.storms import StormDetector
from batsignal.detect.transactions import TransactionDetector
from batsignal.detect.window import Window
from batsignal.names import ApplicationPattern
from batsignal.snapshot import Deploy, Snapshot

# Whose exhaustion is that of the server's slots, where they name no other limit.
SLOT_EATERS: frozenset[Kind] = frozenset({"leak", "query_pileup", "lock_pileup", "storm"})

# Of what clients bring, they bring the same again after a restart: that is true of a database that is not well, too.
NO_CURE: Mapping[Kind, str] = {
    "query_pileup": "A restart of the database is no cure: the statement comes again with the next requests.",
    "storm": "A restart of the database is no cure: its clients come again, all at once.",
}


# Of a server's forty endpoints, so many show who is hurt.
SYMPTOMS_MOST = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What one tick comes to. `superseded` names, for a silenced finding, the finding that explains it."""

    findings: tuple[Finding, ...]
    superseded: Mapping[Key, Key] = field(default_factory=dict)
    exhaustion_seconds: float | None = None


class Judge:
    """All detectors of one server. Owned by the server's tick; the same code judges live and replayed snapshots."""

    def __init__(self, *, thresholds: Thresholds, pattern: ApplicationPattern) -> None:
        self._window = Window(pattern)
        self._counting = Counting(pattern)
        self._leaks = LeakDetector(thresholds)
        self._saturation = SaturationDetector(thresholds)
        self._blocking = Blocking()
        self._locks = LockDetector(self._blocking)
        self._transactions = TransactionDetector(self._blocking)
        self._pileups = PileupDetector()
        self._endpoints = EndpointDetector(thresholds)
        self._slowness = SlownessDetector()
        self._starvation = StarvationDetector()
        self._poolers = PoolerDetector()
        self._reachability = ReachabilityDetector(thresholds)
        self._health = HealthWatch()
        self._storms = StormDetector()
        self._remembering: Mapping[str, Remembering] = {
            "health": self._health,
            "pileups": self._pileups,
            "slowness": self._slowness,
            "storms": self._storms,
        }
        self._causes = Causes()
        self._shown: set[Key] = set()

    def remembered(self) -> Memory:
        """Return what is usual here, for the next life of the daemon: JSON values, by detector."""
        return {name: detector.remembered() for name, detector in self._remembering.items()}

    def recall(self, memory: Memory) -> tuple[str, ...]:
        """Take over what an earlier life remembered; return the detectors whose memory did not fit and stays unused."""
        unfit = []
        for name, detector in self._remembering.items():
            if name in memory:
                try:
                    detector.recall(memory[name])
                except (ValueError, TypeError, KeyError, AttributeError):
                    unfit.append(name)
        return tuple(unfit)

    def expect(self, left: Iterable[Finding], left_at: float) -> None:
        """Be told what the daemon before us said last, of what was lit when it looked last, at `left_at`."""
        self._leaks.expect([finding for finding in left if finding.kind == "leak"], left_at)

    def look(self, snapshot: Snapshot, deploys: Iterable[Deploy]) -> Verdict:
        """Judge one more look; `deploys` are all that are known by now."""
        window = self._window
        window.add(snapshot)
        counted = self._counting.add(snapshot, window)
        self._blocking.add(window)
        found = [
            *self._leaks.look(window),
            *self._locks.look(window),
            *self._pileups.look(window),
            *self._transactions.look(window),
            *self._storms.look(counted),
            *self._saturation.look(counted, snapshot),
            *self._endpoints.look(probe for probe in snapshot.probes if probe.is_home),
            *self._slowness.look([probe for probe in snapshot.probes if probe.is_home], snapshot.t),
            *self._starvation.look(window, snapshot.probes),
            *self._poolers.look(window),
            *self._reachability.look(snapshot),
        ]
        kept, superseded = self._causes.first(found, snapshot.t)
        # A symptom that a cause has silenced does not light as it fades, once the cause is gone.
        kept = [finding for finding in kept if not finding.fading or (finding.kind, finding.key) in self._shown]
        self._shown = {(finding.kind, finding.key) for finding in kept}
        self._health.learn(window, calm=not kept)
        symptoms = _symptoms(found, superseded)
        findings = self._told(kept, symptoms, tuple(deploys), snapshot) if kept else ()
        exhaustion = self._exhaustion(findings, counted)
        return Verdict(findings=findings, superseded=superseded, exhaustion_seconds=exhaustion)

    def _told(
        self,
        kept: Sequence[Finding],
        symptoms: Mapping[Key, Sequence[str]],
        deploys: Sequence[Deploy],
        latest: Snapshot,
    ) -> tuple[Finding, ...]:
        checkup = self._health.check_up(self._window, latest)
        locks_explained = any(finding.kind in LOCK_KINDS for finding in kept)
        return tuple(
            told(
                replace(finding, evidence=(*finding.evidence, *symptoms.get((finding.kind, finding.key), ()))),
                Health(is_full=is_full(latest))
                if checkup is None
                else checkup.of(finding, locks_explained=locks_explained),
                blame(finding, deploys, self._window),
            )
            for finding in kept
        )

    def _exhaustion(self, findings: Iterable[Finding], counted: Window) -> float | None:
        snapshot = counted.snapshot
        if snapshot is None or snapshot.slots is None or counted.t != snapshot.t:
            return None
        eaten = (
            finding.exhaustion_seconds
            for finding in findings
            if finding.kind in SLOT_EATERS and finding.subject.limit is None
        )
        return min(self._saturation.exhaustion_seconds(counted), *eaten, math.inf)


def _symptoms(found: Iterable[Finding], superseded: Mapping[Key, Key]) -> Mapping[Key, Sequence[str]]:
    """Return what to say of the health endpoints that suffer from a cause, by that cause.

    Of an empty pool, its own detector says it.
    """
    symptoms: dict[Key, list[str]] = {}
    for finding in found:
        cause = superseded.get((finding.kind, finding.key)) if finding.kind in ENDPOINTS else None
        if cause is not None and cause[0] != "pool_starvation":
            symptoms.setdefault(cause, []).append(finding.summary)
    return {
        cause: [
            *said[:SYMPTOMS_MOST],
            *([f"so do {len(said) - SYMPTOMS_MOST} more"] if len(said) > SYMPTOMS_MOST else []),
        ]
        for cause, said in symptoms.items()
    }


def told(finding: Finding, health: Health, blamed: Blame) -> Finding:
    """Return the finding with its verdict, its deploy and the words for both."""
    if finding.kind == "storm" and blamed.deploy is not None:
        finding = storm_words.after_deploy(finding)
    parts = [_undo(finding, blamed.deploy), finding.action, _do_not(finding, health)]
    return replace(
        finding,
        evidence=(*finding.evidence, *blamed.evidence, *health.evidence),
        action=" ".join(part for part in parts if part),
        deploy=blamed.deploy,
        database_healthy=health.healthy,
    )


def _undo(finding: Finding, deploy: DeployRef | None) -> str:
    """Say what to undo first: the deploy, if one is known."""
    if deploy is None:
        return finding.undo
    return (
        f"Roll back {deploy.service} to {deploy.previous}."
        if deploy.previous
        else f"Roll back {deploy.service}@{deploy.version}."
    )


def _do_not(finding: Finding, health: Health) -> str:
    """Say that the database is not to be restarted; of one that is not well only where a restart is no cure either."""
    if health.healthy:
        wait = " Its sessions wait for one another." if finding.kind == "lock_pileup" else ""
        return f"Do not restart the database: it is healthy.{wait}"
    if health.healthy is None and health.is_full:
        is_server_full = finding.subject.limit in {None, "server"}
        return f"Do not restart the database: it is alive{', and full' if is_server_full else ''}."
    return NO_CURE.get(finding.kind, "") if health.healthy is False else ""
