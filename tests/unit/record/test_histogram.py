import pytest

from batsignal.record.histogram import Histogram


@pytest.mark.parametrize(("value", "bucket"), [(0.0, 0), (1.0, 0), (1.01, 1), (2.0, 1), (2.01, 2), (1e9, 2)])
def test_value_on_a_bound_belongs_to_that_bound(value: float, bucket: int) -> None:
    histogram = Histogram.empty((1.0, 2.0)).observe(value)
    assert histogram.counts[bucket] == 1
    assert histogram.total == value
