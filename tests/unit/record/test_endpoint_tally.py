from batsignal.record.endpoint_tally import EndpointTally
from batsignal.snapshot import ProbeResult

T = 1_760_000_000.0


def test_endpoint_tally_keeps_the_last_probe_and_counts_failures() -> None:
    tally = EndpointTally(endpoint="web", service="web")
    for up in (True, False, False):
        tally = tally.add(ProbeResult(endpoint="web", service="web", at=T, up=up, seconds=0.05))
    assert tally.failures == 2
    assert tally.last is not None
    assert tally.last.up is False
    assert sum(tally.durations.counts) == 3
