import pytest

from batsignal.detect.signal import KINDS
from batsignal.drills import incidents
from batsignal.errors import ConfigError


def test_every_incident_is_named_by_the_kind_of_signal_that_must_light() -> None:
    assert set(incidents.INCIDENTS) <= set(KINDS)


def test_an_unknown_incident_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"expected one of leak.*, got 'earthquake'"):
        incidents.find("earthquake")
