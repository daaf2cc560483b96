import math
import random
from collections.abc import Callable
from typing import Any

import pytest

from batsignal.config import Thresholds
from batsignal.detect.growth import Growth
from batsignal.detect.saturation import SaturationDetector
from batsignal.detect.window import Window
from batsignal.names import ApplicationPattern
from batsignal.snapshot import PollFailure, Session, Slots, Snapshot

T = 1_760_000_000.0
HUNDRED = Slots(max=103, superuser_reserved=3)


class Total:
    """A server of which only the number of sessions is told; a second passes with each look."""

    def __init__(self, pattern: ApplicationPattern, slots: Slots | None = HUNDRED) -> None:
        self.window = Window(pattern)
        self.detector = SaturationDetector(Thresholds())
        self.slots = slots
        self.t = T
        self.facts: dict[str, Any] = {}
        self.rows: list[Session] = []

    def look(self, used: int, seconds: float = 1.0, **names: Any) -> tuple[Any, ...]:
        self.t += seconds
        for n in range(len(self.rows), used):
            self.rows.append(Session(pid=n, backend_start=T + n, state="active", **names))
        sessions = tuple(self.rows[:used])
        return self.see(Snapshot(server="db1", t=self.t, sessions=sessions, slots=self.slots, **self.facts))

    def see(self, snapshot: Snapshot) -> tuple[Any, ...]:
        self.window.add(snapshot)
        return tuple(self.detector.look(self.window, snapshot))

    def hold(self, used: int, looks: float, **names: Any) -> tuple[Any, ...]:
        found: tuple[Any, ...] = ()
        for _ in range(int(looks)):
            found = self.look(used, **names)
        return found

    def fail(self) -> tuple[Any, ...]:
        self.t += 1.0
        failure = PollFailure(reason="timeout", text="no answer")
        return self.see(Snapshot(server="db1", t=self.t, failure=failure))

    @property
    def exhaustion_seconds(self) -> float:
        return self.detector.exhaustion_seconds(self.window)


@pytest.fixture
def total(pattern: ApplicationPattern) -> Total:
    return Total(pattern)


# -- thresholds --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("used", "severity"),
    [(79, None), (80, "warning"), (81, "warning"), (89, "warning"), (90, "critical"), (91, "critical")],
)
def test_eighty_percent_warns_and_ninety_is_critical(total: Total, used: int, severity: str | None) -> None:
    found = total.hold(used, 310)
    assert [one.severity for one in found] == ([severity] if severity else [])


def test_ninety_percent_is_critical_once_held_for_four_seconds(total: Total) -> None:
    total.hold(50, 10)
    assert [bool(total.look(90)) for _ in range(5)] == [False, False, False, False, True]


def test_eighty_percent_that_grow_no_further_warn_after_five_minutes(total: Total) -> None:
    total.hold(50, 10)
    assert not total.hold(80, 300)
    (found,) = total.look(80)
    assert found.severity == "warning"


def test_eighty_percent_that_grow_towards_the_limit_warn_after_half_a_minute(total: Total) -> None:
    for n in range(180):
        total.look(65 + n // 12)
    assert not total.hold(80, 30)
    (found,) = total.look(80)
    assert found.severity == "warning"
    assert 120 <= found.exhaustion_seconds <= 480


def test_a_peak_that_came_and_went_is_usual_until_it_lasts_half_as_long_again(total: Total) -> None:
    total.hold(50, 10)
    assert total.hold(85, 400)  # the first one, nobody knows
    total.hold(50, 400)
    for _ in range(5):
        assert not total.hold(85, 400)
        assert not total.hold(50, 400)
    assert total.hold(85, 1.5 * 400 + 60)


def test_a_peak_that_is_usual_is_critical_at_ninety_percent_all_the_same(total: Total) -> None:
    for _ in range(3):
        total.hold(50, 400)
        total.hold(85, 400)
    assert [one.severity for one in total.hold(90, 5)] == ["critical"]


def test_peak_of_three_seconds_says_nothing(total: Total) -> None:
    for _ in range(20):
        assert not total.hold(50, 10)
        assert not total.hold(99, 3)


def test_warning_becomes_critical_at_ninety(total: Total) -> None:
    total.hold(85, 310)
    found = total.hold(92, 6)
    assert [one.severity for one in found] == ["critical"]
    assert found[0].since == T + 1


def test_critical_lets_go_five_points_lower(total: Total) -> None:
    total.hold(92, 10)
    assert [one.severity for one in total.hold(85, 5)] == ["critical"]
    assert [one.severity for one in total.hold(84, 5)] == ["warning"]


def test_warning_ends_after_fifteen_seconds_below_seventy_five(total: Total) -> None:
    total.hold(82, 310)
    assert total.hold(75, 60)
    assert total.hold(74, 15)
    assert not total.look(74)


def test_limit_that_is_brushed_does_not_flap(total: Total) -> None:
    total.hold(82, 310)
    for _ in range(20):
        assert total.hold(74, 5)
        assert total.hold(76, 2)


def test_own_seat_counts_and_reserved_slots_do_not(pattern: ApplicationPattern) -> None:
    total = Total(pattern, Slots(max=110, superuser_reserved=3, reserved=7))
    total.facts = {"own_sessions": 1}
    (found,) = total.hold(89, 10)
    assert found.summary.startswith("90 of 100 of the server's connection slots are taken")
    assert found.severity == "critical"


def test_summary_says_when_none_is_left(total: Total) -> None:
    (found,) = total.hold(100, 10)
    assert found.exhaustion_seconds == 0.0
    assert "none is left" in found.summary


def test_what_is_over_and_lit_for_some_seconds_yet_says_so(total: Total) -> None:
    total.hold(95, 10)
    (finding,) = total.look(20)
    assert finding.summary == "20 of 100 of the server's connection slots are taken; more were until a moment ago"


def test_reserved_slots_that_are_taken_too_are_told_apart(total: Total) -> None:
    (found,) = total.hold(102, 10)
    assert found.summary == "all 100 of the server's connection slots and 2 reserved ones are taken; none is left"


def test_largest_holders_are_named_first_in_the_action(total: Total) -> None:
    found = total.hold(95, 10, application_name="web@2.4.0", usename="app")
    assert found[0].action == "Ask the largest holders first: web@2.4.0 95."


@pytest.mark.parametrize("slots", [None, Slots(max=3, superuser_reserved=3)], ids=["unknown", "none usable"])
def test_server_whose_slots_are_not_known_is_never_saturated(pattern: ApplicationPattern, slots: Slots | None) -> None:
    total = Total(pattern, slots)
    assert not total.hold(500, 60)


# -- limits of a role and of a database --------------------------------------------------------------------------------


def test_limit_of_a_role_is_watched_on_its_own(total: Total) -> None:
    total.facts = {"role_limits": {"app": 20, "batch": 5}}
    (found,) = total.hold(18, 10, usename="app")
    assert (found.subject.limit, found.subject.user, found.subject.database) == ("role:app", "app", None)
    assert found.severity == "critical"
    assert found.summary.startswith("18 of 20 of the connection limit of role app are taken")


def test_limit_of_a_database_is_watched_on_its_own(total: Total) -> None:
    total.facts = {"database_limits": {"shop": 10}}
    (found,) = total.hold(10, 10, datname="shop")
    assert (found.subject.limit, found.subject.database) == ("database:shop", "shop")
    assert found.exhaustion_seconds == 0.0


@pytest.mark.parametrize("limit", ["role", "database"])
def test_limit_that_others_do_not_share_has_its_own_time_left(total: Total, limit: str) -> None:
    total.facts = {f"{limit}_limits": {"app": 60}}
    names = {"usename": "app"} if limit == "role" else {"datname": "app"}
    found: tuple[Any, ...] = ()
    for n in range(380):
        found = total.look(20 + n // 10, **names)
    (found,) = found
    truth = (60 - 57) * 10
    assert truth / 1.5 <= found.exhaustion_seconds <= truth * 1.5


def test_limit_that_was_taken_away_is_forgotten(total: Total) -> None:
    total.facts = {"role_limits": {"app": 20}}
    total.hold(19, 10, usename="app")
    total.facts = {}
    assert not total.look(19, usename="app")


def test_several_limits_are_several_findings(total: Total) -> None:
    total.facts = {"role_limits": {"app": 100}, "database_limits": {"shop": 95}}
    found = total.hold(95, 10, usename="app", datname="shop")
    assert {one.subject.limit for one in found} == {"server", "role:app", "database:shop"}


# -- gaps and clocks ---------------------------------------------------------------------------------------------------


def test_failed_looks_neither_raise_nor_clear(total: Total) -> None:
    for _ in range(100):
        assert not total.fail()
    total.hold(95, 10)
    for _ in range(100):
        assert total.fail()


def test_clock_that_steps_back_does_not_hold_a_limit_back(total: Total) -> None:
    total.hold(95, 2)
    total.look(95, seconds=-3600)
    assert total.hold(95, 5)


# -- growth ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("per_second", [0.1, 0.25, 1.0])
def test_honest_growth_tells_when_the_slots_run_out_within_a_factor_of_one_and_a_half(
    pattern: ApplicationPattern, per_second: float
) -> None:
    total = Total(pattern, Slots(max=303, superuser_reserved=3))
    used = 40.0
    n = 0
    while used < 170:
        used = 40 + per_second * n
        n += 1
        total.look(int(used) + (7 if n % 11 == 0 else 0))  # peaks of traffic pass
    truth = (300 - used) / per_second
    assert truth / 1.5 <= total.exhaustion_seconds <= truth * 1.5


def test_growth_of_an_hour_is_told_from_far_back(pattern: ApplicationPattern) -> None:
    total = Total(pattern, Slots(max=203, superuser_reserved=3))
    for n in range(2400):
        total.look(100 + n // 60)  # one a minute, that is two in the newest two minutes
    truth = (200 - 139) * 60
    assert truth / 1.5 <= total.exhaustion_seconds <= truth * 1.5


def test_nothing_runs_out_while_the_total_is_flat(total: Total) -> None:
    total.hold(60, 200)
    assert total.exhaustion_seconds == math.inf


def test_traffic_that_goes_up_and_down_is_no_growth(total: Total, make_world: Callable[..., Any]) -> None:
    chance = make_world().chance
    for _ in range(600):
        total.look(40 + chance.randrange(20))
        assert total.exhaustion_seconds == math.inf


@pytest.mark.parametrize(
    ("size", "every", "count", "within"), [(1, 2, 60, 30), (1, 12, 40, 75), (5, 30, 12, 150)], ids=str
)
@pytest.mark.parametrize("noise", [0, 3], ids=["still", "busy"])
def test_nothing_runs_out_soon_after_growth_has_stopped(
    size: int, every: int, count: int, within: int, noise: int
) -> None:
    chance = random.Random(3)  # noqa: S311 - chance that is the same each time
    growth = Growth()
    told = []
    for n in range(every * count + 1800):
        growth.add(T + n, 30 + size * min(n // every, count) + chance.randint(0, noise))
        told.append(growth.seconds_left(100))
    assert math.isfinite(told[every * count - 1])
    assert set(told[every * count + within :]) == {math.inf}


def test_no_line_is_drawn_through_a_gap() -> None:
    growth = Growth()
    for n in range(60):
        growth.add(T + n, 20)
    for n in range(60):
        growth.add(T + 200 + n, 80)
    assert growth.seconds_left(100) == math.inf


def test_no_line_is_drawn_through_a_clock_that_stepped_back() -> None:
    growth = Growth()
    for n in range(60):
        growth.add(T + n, 20 + n)
    growth.add(T - 3600, 20)
    assert growth.seconds_left(100) == math.inf


def test_less_than_half_a_minute_is_too_little_for_a_line() -> None:
    growth = Growth()
    for n in range(29):
        growth.add(T + n, 20 + n)
    assert growth.seconds_left(100) == math.inf


def test_full_server_has_no_time_left(total: Total) -> None:
    total.hold(100, 3)
    assert total.exhaustion_seconds == 0.0
