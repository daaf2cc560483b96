"""Says when a health endpoint is down: the third failed probe in a row, until two in a row succeed.

Owns the counting. It works from the probes alone, whether or not the database can be looked at.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from batsignal.config import Thresholds
from batsignal.detect import wording
from batsignal.detect.signal import Finding, Subject
from batsignal.snapshot import ProbeResult

# An endpoint that is down and has not been probed for so many times its own interval was taken out of the config. Both
# are counted in looks: probes are timed by another clock than the server's.
FORGOTTEN_INTERVALS = 10
FORGOTTEN_LOOKS = 60


@dataclass(slots=True)
class _Endpoint:
    service: str
    last: ProbeResult
    failed: ProbeResult | None = None
    """The newest that failed: one that succeeds says nothing of why it is down."""
    failures: int = 0
    successes: int = 0
    failing_since: float = 0.0
    lit: bool = False
    looks_silent: int = 0
    looks_between: int = 0

    @property
    def is_forgotten(self) -> bool:
        return self.lit and self.looks_silent > FORGOTTEN_INTERVALS * self.looks_between + FORGOTTEN_LOOKS


class EndpointDetector:
    """Counts failed and good probes per endpoint."""

    def __init__(self, thresholds: Thresholds) -> None:
        self._limits = thresholds
        self._endpoints: dict[str, _Endpoint] = {}

    def look(self, probes: Iterable[ProbeResult]) -> Iterable[Finding]:
        """Return the endpoints that are down, after the probes that are new in this tick."""
        for endpoint in self._endpoints.values():
            endpoint.looks_silent += 1
        for probe in probes:
            self._count(probe)
        for name in [name for name, endpoint in self._endpoints.items() if endpoint.is_forgotten]:
            del self._endpoints[name]
        return [_finding(name, endpoint) for name, endpoint in sorted(self._endpoints.items()) if endpoint.lit]

    def _count(self, probe: ProbeResult) -> None:
        endpoint = self._endpoints.setdefault(probe.endpoint, _Endpoint(probe.service, probe))
        endpoint.last, endpoint.service = probe, probe.service
        endpoint.looks_between = max(endpoint.looks_between, endpoint.looks_silent)
        endpoint.looks_silent = 0
        if probe.up:
            endpoint.failures = 0
            endpoint.successes += 1
            endpoint.lit = endpoint.lit and endpoint.successes < self._limits.endpoint_successes
            return
        endpoint.successes = 0
        endpoint.failures += 1
        endpoint.failed = probe
        if endpoint.failures == 1 and not endpoint.lit:
            endpoint.failing_since = probe.at
        endpoint.lit = endpoint.lit or endpoint.failures >= self._limits.endpoint_failures


def _finding(name: str, endpoint: _Endpoint) -> Finding:
    last = endpoint.failed or endpoint.last
    reason = last.reason or (f"HTTP {last.status}" if last.status else "no reason known")
    return Finding(
        kind="endpoint_down",
        key=(name,),
        severity="critical",
        subject=Subject(application=endpoint.service, endpoint=name),
        since=endpoint.failing_since,
        evidence=(
            f"last failed probe: {reason}, after {wording.latency(last.seconds)}",
            f"failing since {wording.clock_time(endpoint.failing_since)}",
        ),
        summary=f"the health endpoint {name} of {endpoint.service} fails: {reason}",
        action=f"Look at {endpoint.service} first.",
    )
