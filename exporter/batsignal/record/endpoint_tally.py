"""What the probes of one health endpoint have added up to. Pure; immutable, so that a board may show it."""

from dataclasses import dataclass, field

from batsignal.record.histogram import Histogram
from batsignal.snapshot import ProbeResult

ENDPOINT_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointTally:
    """The last probe of an endpoint and the durations of all. `last` is None until the first one ended."""

    endpoint: str
    service: str
    last: ProbeResult | None = None
    durations: Histogram = field(default_factory=lambda: Histogram.empty(ENDPOINT_BUCKETS))
    failures: int = 0

    def add(self, result: ProbeResult) -> "EndpointTally":
        return EndpointTally(
            endpoint=self.endpoint,
            service=self.service,
            last=result,
            durations=self.durations.observe(result.seconds),
            failures=self.failures + (not result.up),
        )
