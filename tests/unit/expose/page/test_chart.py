from itertools import pairwise
from typing import Any

import pytest

from batsignal.expose.page.chart import COLUMNS_MAX, HEIGHT, Mark, draw
from batsignal.record.board import SlotSample


def samples(*used: int | None, start: float = 0.0) -> tuple[SlotSample, ...]:
    return tuple(
        SlotSample(t=start + n, used=held, usable=97, by_application=(("web", held - 1),) if held else ())
        for n, held in enumerate(used)
    )


def test_no_history_and_a_single_tick_draw_nothing() -> None:
    assert draw((), 1.0) is None
    assert draw(samples(5), 1.0) is None


def test_history_in_which_every_look_failed_draws_nothing() -> None:
    assert draw(samples(None, None, None), 1.0) is None


def test_steady_history_is_one_rectangle_a_band() -> None:
    chart = draw(samples(10, 10, 10, 10), 1.0)
    assert chart is not None
    assert [band.name for band in chart.bands] == ["web", "others"]
    assert [band.sessions for band in chart.bands] == [9, 1]
    assert all(band.path.count("M") == 1 and band.path.count("H") == 1 for band in chart.bands)
    assert all(band.path.endswith(f"V{HEIGHT}z") for band in chart.bands)


def test_failed_looks_are_a_gap_in_every_band() -> None:
    chart = draw(samples(10, 10, None, None, None, 10, 10), 1.0)
    assert chart is not None
    assert chart.gap_columns == 3
    assert all(band.path.count("M") == 2 for band in chart.bands)


def test_history_that_ends_in_failure_names_no_number_of_now() -> None:
    chart = draw(samples(10, 10, None), 1.0)
    assert chart is not None
    assert [band.sessions for band in chart.bands] == [None, None]


def test_ticks_that_were_never_taken_are_a_gap_too() -> None:
    chart = draw((*samples(10, 10, 10), *samples(10, 10, 10, start=20.0)), 1.0)
    assert chart is not None
    assert chart.gap_columns > 10


def test_late_tick_tears_no_hole() -> None:
    late = [sample for sample in samples(*[10] * 20) if sample.t not in {7.0, 13.0}]
    chart = draw(late, 1.0)
    assert chart is not None
    assert chart.gap_columns == 0


def test_peak_of_one_tick_survives_the_cutting_into_columns() -> None:
    used = [10] * 900
    used[450] = 97
    chart = draw(samples(*used), 1.0)
    assert chart is not None
    top = min(int(part.split("H")[0].split("z")[0]) for part in chart.bands[0].path.split("V")[1:])
    assert top / HEIGHT * 100 == pytest.approx(chart.usable_percent, abs=0.5)


def test_only_the_last_quarter_of_an_hour_is_drawn() -> None:
    chart = draw(samples(*[10] * 2000), 1.0)
    assert chart is not None
    assert chart.ended_at - chart.started_at == 900.0
    assert chart.started_at <= 1999.0 - 890.0


@pytest.mark.parametrize(("known_seconds", "shown_seconds"), [(10, 120), (120, 120), (122, 300), (302, 900)])
def test_what_is_known_decides_how_long_the_axis_is(known_seconds: int, shown_seconds: int) -> None:
    chart = draw(samples(*[10] * (known_seconds + 1)), 1.0)
    assert chart is not None
    assert chart.ended_at - chart.started_at == shown_seconds


def test_columns_stand_still_while_time_goes_on() -> None:
    used = [10 + n % 13 for n in range(1000)]
    before, after = (draw(samples(*used[:n]), 1.0) for n in (950, 951))
    assert before is not None
    assert after is not None
    assert before.started_at == after.started_at
    assert after.bands[0].path.startswith(before.bands[0].path.rpartition("V")[0].rpartition("V")[0])


def test_picture_of_a_restless_history_stays_small() -> None:
    chart = draw(samples(*[10 + n % 7 * 11 for n in range(900)]), 1.0)
    assert chart is not None
    assert all(len(band.path) < COLUMNS_MAX * 12 for band in chart.bands)


def test_small_applications_share_the_band_of_the_others() -> None:
    held = tuple((f"app{n}", 10 - n) for n in range(8))
    history = tuple(SlotSample(t=float(n), used=53, usable=97, by_application=held) for n in range(5))
    chart = draw(history, 1.0)
    assert chart is not None
    assert [(band.name, band.sessions) for band in chart.bands] == [
        ("app0", 10),
        ("app1", 9),
        ("app2", 8),
        ("app3", 7),
        ("others", 53 - 34),
    ]


def test_the_culprit_lies_on_top_however_small_and_is_always_named() -> None:
    held = tuple((f"app{n}", 10 - n) for n in range(6))
    history = tuple(SlotSample(t=float(n), used=53, usable=97, by_application=held) for n in range(5))
    chart = draw(history, 1.0, culprits={"app5"})
    assert chart is not None
    assert [(band.name, band.style) for band in chart.bands] == [
        ("app5", "culprit"),
        ("app0", "b0"),
        ("app1", "b1"),
        ("app2", "b2"),
        ("others", "rest"),
    ]


def test_more_sessions_than_usable_slots_still_fit_the_picture() -> None:
    chart = draw(samples(99, 100, 100), 1.0)
    assert chart is not None
    heights = [int(part.split("H")[0]) for part in chart.bands[0].path.split("V")[1:-1]]
    assert all(0 <= height <= HEIGHT for height in heights)
    assert chart.usable_percent is not None
    assert chart.usable_percent > min(heights) / HEIGHT * 100


def test_deploys_inside_the_window_are_marked_and_others_are_not() -> None:
    marks = [Mark(at=at, label=f"web {at}") for at in (-500.0, 40.0, 500.0)]
    chart = draw(samples(*[10] * 101), 1.0, marks=marks)
    assert chart is not None
    assert (chart.started_at, chart.ended_at) == (-19.0, 101.0)
    assert [(mark.label, mark.percent) for mark in chart.marks] == [("web 40.0", 49.2)]
    assert not chart.marks[0].is_right


def test_columns_never_run_backwards(boards: Any) -> None:
    chart = draw(boards.history(62, seconds=333), 1.0)
    assert chart is not None
    for band in chart.bands:
        xs = [int(part.split("V")[0]) for part in band.path.split("H")[1:]]
        assert all(before < after for before, after in pairwise(xs))
