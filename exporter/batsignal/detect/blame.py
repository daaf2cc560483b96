"""After which deploy: the one that plausibly brought a finding about, and what else could have.

A wrong deploy sends somebody to roll back what is innocent, while the incident lasts. So one is named only when it is
of the culprit's own service and version, came first, came not too long before, and nothing shows that the same did no
harm after it. What could also be, other deploys about that time, is evidence and never the deploy. No state, no clock.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from batsignal.detect import wording
from batsignal.detect.signal import DeployRef, Finding, Kind
from batsignal.detect.window import Window
from batsignal.snapshot import Deploy

HOUR_SECONDS = 3600.0
# How long after a deploy its doing may first be seen. What a request does shows within minutes of the first request;
# a leak waits for the path that leaks (a nightly one at the latest), and a pool is empty only once it has leaked.
PLAUSIBLE_SECONDS: Mapping[Kind, float] = {
    "leak": 24 * HOUR_SECONDS,
    "pool_starvation": 24 * HOUR_SECONDS,
    "query_pileup": HOUR_SECONDS,
    "storm": HOUR_SECONDS / 2,
    "idle_in_transaction": HOUR_SECONDS / 2,
    "lock_pileup": HOUR_SECONDS / 4,
    "endpoint_down": HOUR_SECONDS / 4,
    "endpoint_slow": HOUR_SECONDS / 4,
}
# What announces a deploy looks at another clock than ours.
CLOCKS_APART_SECONDS = 5.0
# Where the sessions carry that very version, they cannot be older than it: whoever marked it did so late, or the first
# sessions of it were too short to be seen.
SHOWN_LATE_SECONDS = 15.0
# Two deploys of a service so close together: nobody can tell which of them did it.
CANDIDATES_APART_SECONDS = 600.0
# Another service's deploy is worth a word only when it came right before.
BYSTANDER_SECONDS = 300.0
BYSTANDERS_MOST = 2
# A version that fewer of the culprit's sessions carry is a bystander among them.
VERSION_SHARE_LEAST = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Blame:
    """The deploy, None when none is named, and sentences for the evidence."""

    deploy: DeployRef | None = None
    evidence: tuple[str, ...] = ()


def versions_of(versions: Iterable[str | None]) -> tuple[str, ...]:
    """Return the versions that the culprit's sessions carry, given each session's; what few carry is left out.

    >>> versions_of(["2.4.0", "2.3.9", "2.4.0", None])
    ('2.3.9', '2.4.0')
    """
    counted = Counter(versions)
    least = VERSION_SHARE_LEAST * counted.total()
    return tuple(sorted(version for version, count in counted.items() if version is not None and count >= least))


def blame(finding: Finding, deploys: Sequence[Deploy], window: Window) -> Blame:
    """Return the newest deploy that plausibly brought the finding about, and what else was deployed about that time."""
    most_seconds = PLAUSIBLE_SECONDS.get(finding.kind)
    if most_seconds is None or not deploys:
        return Blame()
    came_first = [deploy for deploy in deploys if _came_first(deploy, finding, most_seconds)]
    own = [deploy for deploy in came_first if _may_have_done_it(deploy, finding, deploys)]
    named = max(own, key=lambda deploy: deploy.at, default=None)
    if named is None:
        return Blame(evidence=tuple(_bystanders(finding, came_first, window)))
    before = wording.duration(max(finding.since - named.at, 0.0))
    what = "the first of them" if finding.sessions else "it began"
    evidence = [f"{_name(named)} was deployed at {wording.clock_time(named.at)}, {before} before {what}"]
    evidence += _second_candidate(named, finding, came_first)
    if finding.subject.version is None:
        evidence += _bystanders(finding, came_first, window, named)
    # Nobody is sent back to what was just rolled back.
    previous = None if _is_roll_back(named, deploys) else named.previous
    deploy = DeployRef(service=named.service, version=named.version, at=named.at, previous=previous)
    return Blame(deploy=deploy, evidence=tuple(evidence))


def _came_first(deploy: Deploy, finding: Finding, most_seconds: float) -> bool:
    shown = deploy.service == finding.subject.application and deploy.is_of(finding.subject.version)
    late = SHOWN_LATE_SECONDS if shown else CLOCKS_APART_SECONDS
    if not -late <= finding.since - deploy.at <= most_seconds:
        return False
    return finding.harmless_at is None or deploy.at >= finding.harmless_at - CLOCKS_APART_SECONDS


def _may_have_done_it(deploy: Deploy, finding: Finding, deploys: Sequence[Deploy]) -> bool:
    """Whether it is of the culprit's service, and of the version of all its sessions or before each of theirs."""
    subject = finding.subject
    if subject.application is None or deploy.service != subject.application:
        return False
    if subject.version is not None:
        return deploy.is_of(subject.version)
    # Versions that differ, among them one from before this deploy: it did the same without it.
    later = [one for one in deploys if one.service == deploy.service and one.at >= deploy.at]
    return all(any(one.is_of(version) for one in later) for version in finding.versions)


def _is_roll_back(deploy: Deploy, deploys: Iterable[Deploy]) -> bool:
    """Whether a deploy undid the one before it."""
    return any(
        (one.service, one.version, one.previous) == (deploy.service, deploy.previous, deploy.version)
        and one.at <= deploy.at
        for one in deploys
    )


def _second_candidate(named: Deploy, finding: Finding, came_first: Iterable[Deploy]) -> Iterable[str]:
    """Tell of the deploy of the same service shortly before: what came with it may have waited for its first use."""
    others = [
        deploy
        for deploy in came_first
        if deploy.service == named.service
        and not deploy.is_of(named.version)
        and 0 <= named.at - deploy.at <= CANDIDATES_APART_SECONDS
    ]
    other = max(others, key=lambda deploy: deploy.at, default=None)
    if other is not None:
        apart = wording.duration(finding.since - other.at)
        yield f"two candidates: {_name(other)} was deployed {apart} before, too; it may have come with that one"


def _bystanders(
    finding: Finding, came_first: Iterable[Deploy], window: Window, named: Deploy | None = None
) -> Iterable[str]:
    """Tell of what else was deployed right before, and whether it logs in as the culprit does."""
    alike = _services_alike(finding, window)
    too = "" if named is None else ", too"
    near = [
        deploy
        for deploy in came_first
        if deploy.service != finding.subject.application and finding.since - deploy.at <= BYSTANDER_SECONDS
    ]
    for deploy in sorted(near, key=lambda deploy: (deploy.service not in alike, -deploy.at))[:BYSTANDERS_MOST]:
        before = wording.duration(max(finding.since - deploy.at, 0.0))
        who = ", which logs in as the same user from the same host," if deploy.service in alike else ""
        yield f"{_name(deploy)}{who} was deployed {before} before{too}"


def _services_alike(finding: Finding, window: Window) -> frozenset[str]:
    """Return the services that log in as an unnamed culprit does; none when there is more to it than user and host."""
    subject = finding.subject
    if subject.application is not None or subject.user is None or subject.client is None:
        return frozenset()
    return frozenset(
        key.service
        for key in window.origins
        if key.service is not None and (key.user, key.client) == (subject.user, subject.client)
    )


def _name(deploy: Deploy) -> str:
    return f"{deploy.service}@{deploy.version}"
