from itertools import pairwise
from typing import Any

from batsignal.expose.page.chart import COLUMNS_MAX, HEIGHT, WIDTH, draw
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
    assert [band.name for band in chart.bands] == ["others", "web"]
    assert [band.sessions for band in chart.bands] == [1, 9]
    assert all(band.path.count("M") == 1 and band.path.endswith(f"H{WIDTH}V{HEIGHT}z") for band in chart.bands)


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
    assert f"V{chart.usable_y}" in chart.bands[0].path


def test_only_the_last_quarter_of_an_hour_is_drawn() -> None:
    chart = draw(samples(*[10] * 2000), 1.0)
    assert chart is not None
    assert chart.ended_at - chart.started_at == 901.0


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
        ("others", 53 - 34),
        ("app3", 7),
        ("app2", 8),
        ("app1", 9),
        ("app0", 10),
    ]


def test_more_sessions_than_usable_slots_still_fit_the_picture() -> None:
    chart = draw(samples(99, 100, 100), 1.0)
    assert chart is not None
    heights = [int(part.split("H")[0]) for part in chart.bands[0].path.split("V")[1:-1]]
    assert all(0 <= height <= HEIGHT for height in heights)
    assert chart.usable_y is not None
    assert chart.usable_y > min(heights)


def test_deploys_inside_the_window_are_marked_and_others_are_not() -> None:
    chart = draw(samples(*[10] * 100), 1.0, [-5.0, 50.0, 500.0])
    assert chart is not None
    assert chart.marks == (WIDTH // 2,)


def test_columns_never_run_backwards(boards: Any) -> None:
    chart = draw(boards.history(62, seconds=333), 1.0)
    assert chart is not None
    for band in chart.bands:
        xs = [int(part.split("V")[0]) for part in band.path.split("H")[1:]]
        assert all(before < after for before, after in pairwise(xs))
