"""Puts the detectors together: who looks, and what is said to a person.

A new kind is one module and one line in `Judge`. Causes come before symptoms (`causes`): what a lit cause explains is
silenced and counts as superseded by it. The verdict on the database's health says what the incident is *not*.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from statistics import median

from batsignal.config import Thresholds
from batsignal.detect import wording
from batsignal.detect.causes import causes_first
from batsignal.detect.endpoints import EndpointDetector
from batsignal.detect.leaks import LeakDetector
from batsignal.detect.memory import Memory, Remembering
from batsignal.detect.reachability import ReachabilityDetector
from batsignal.detect.saturation import SaturationDetector
from batsignal.detect.signal import DeployRef, Finding, Key
from batsignal.detect.window import Window
from batsignal.snapshot import ApplicationPattern, Deploy, Snapshot

# A deploy this long before the onset is no longer named as its cause, and one this little after it still is:
# a version shows itself in its first session, which may be the first one lost.
DEPLOY_BEFORE_SECONDS = 24 * 3600.0
DEPLOY_AFTER_SECONDS = 5.0

PING_SLOW_SECONDS = 0.05
PING_SLOW_FACTOR = 10.0
BLOCKED_HEALTHY_MOST = 2


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
        self._leaks = LeakDetector(thresholds)
        self._saturation = SaturationDetector(thresholds)
        self._endpoints = EndpointDetector(thresholds)
        self._reachability = ReachabilityDetector(thresholds)
        self._remembering: Mapping[str, Remembering] = {}
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

    def look(self, snapshot: Snapshot, deploys: Iterable[Deploy]) -> Verdict:
        """Judge one more look; `deploys` are all that are known by now."""
        window = self._window
        window.add(snapshot)
        found = [
            *self._leaks.look(window),
            *self._saturation.look(window),
            *self._endpoints.look(snapshot.probes),
            *self._reachability.look(snapshot),
        ]
        kept, superseded = causes_first(found)
        # A symptom that a cause has silenced does not light as it fades, once the cause is gone.
        kept = [finding for finding in kept if not finding.fading or (finding.kind, finding.key) in self._shown]
        self._shown = {(finding.kind, finding.key) for finding in kept}
        health = _health(window)
        deploys = tuple(deploys)
        findings = tuple(_told(finding, health, _deploy_before(finding, deploys)) for finding in kept)
        return Verdict(findings=findings, superseded=superseded, exhaustion_seconds=self._exhaustion(findings))

    def _exhaustion(self, findings: Iterable[Finding]) -> float | None:
        snapshot = self._window.snapshot
        if snapshot is None or snapshot.slots is None or self._window.t != snapshot.t:
            return None
        leaks = (
            finding.exhaustion_seconds
            for finding in findings
            if finding.kind == "leak" and finding.subject.limit is None
        )
        return min(self._saturation.exhaustion_seconds(self._window), *leaks, math.inf)


@dataclass(frozen=True, slots=True)
class _Health:
    """Whether the database itself is well, and the sentence that says by what; None when nothing is known."""

    healthy: bool | None
    evidence: str | None = None


def _health(window: Window) -> _Health:
    snapshot = window.snapshot
    if snapshot is None or snapshot.t != window.t or snapshot.ping_seconds is None:
        return _Health(None)
    usual = median(window.pings)
    quick = snapshot.ping_seconds <= max(PING_SLOW_SECONDS, PING_SLOW_FACTOR * usual)
    blocked = sum(1 for session in snapshot.sessions if session.wait_event_type == "Lock")
    waits = "no lock waits" if not blocked else f"{wording.sessions(blocked)} waiting for locks"
    ping = f"ping {wording.milliseconds(snapshot.ping_seconds)}"
    if not quick:
        ping += f" (usually {wording.milliseconds(usual)})"
    return _Health(quick and blocked <= BLOCKED_HEALTHY_MOST, f"{ping}, {waits}")


def _deploy_before(finding: Finding, deploys: Iterable[Deploy]) -> DeployRef | None:
    """Return the newest deploy of the culprit's service and version that came before the onset, if there is one."""
    service, version = finding.subject.application, finding.subject.version
    if finding.kind != "leak" or service is None:
        return None
    fitting = [
        deploy
        for deploy in deploys
        if deploy.service == service
        and version in {None, deploy.version}
        and -DEPLOY_AFTER_SECONDS <= finding.since - deploy.at <= DEPLOY_BEFORE_SECONDS
    ]
    newest = max(fitting, key=lambda deploy: deploy.at, default=None)
    if newest is None:
        return None
    return DeployRef(service=service, version=newest.version, at=newest.at, previous=newest.previous)


def _told(finding: Finding, health: _Health, deploy: DeployRef | None) -> Finding:
    """Return the finding with its verdict, its deploy and the words for both."""
    healthy = None if finding.kind == "database_unreachable" else health.healthy
    evidence = finding.evidence
    if deploy is not None:
        before = max(finding.since - deploy.at, 0.0)
        when = f"{wording.clock_time(deploy.at)}, {wording.duration(before)} before the first of them"
        evidence += (f"{deploy.service}@{deploy.version} was deployed at {when}",)
    if healthy is not None and health.evidence is not None:
        evidence += (health.evidence,)
    action = _undo(finding, deploy) if finding.kind == "leak" else finding.action
    if healthy:
        action = f"{action} Do not restart the database: it is healthy.".strip()
    return replace(finding, evidence=evidence, action=action, deploy=deploy, database_healthy=healthy)


def _undo(finding: Finding, deploy: DeployRef | None) -> str:
    subject = finding.subject
    if deploy is not None:
        return f"Roll back {deploy.service}" + (f" to {deploy.previous}." if deploy.previous else ".")
    if subject.application is not None:
        return f"Restart or roll back {wording.culprit(subject)}: it does not give its connections back."
    return f"Find the application of {wording.culprit(subject)} and restart it: it does not give its connections back."
