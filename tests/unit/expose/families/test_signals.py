"""What is served of lit signals for the texts of the alerts."""

from typing import Any

from batsignal.detect.signal import DeployRef
from batsignal.expose.families.signals import signal_families


def served(boards: Any, deploy: DeployRef | None) -> dict[str, dict[str, str]]:
    """Return the labels of each family of which there is one sample."""
    signal = boards.signal(deploy=deploy)
    return {
        family.name: dict(family.samples[0].labels)
        for family in signal_families(boards.server(signals=(signal,)))
        if len(family.samples) == 1
    }


def test_the_version_to_go_back_to_is_served_beside_the_deploy_where_it_is_known(boards: Any) -> None:
    found = served(boards, DeployRef(service="web", version="2.4.0", at=boards.now, previous="2.3.9"))
    assert found["batsignal_signal"]["deploy"] == "web@2.4.0"
    assert found["batsignal_signal_previous_info"]["previous"] == "2.3.9"
    assert found["batsignal_signal_previous_info"]["application"] == "web"


def test_without_one_there_is_no_series_of_it(boards: Any) -> None:
    for deploy in (None, DeployRef(service="web", version="2.4.0", at=boards.now)):
        assert "batsignal_signal_previous_info" not in served(boards, deploy)
