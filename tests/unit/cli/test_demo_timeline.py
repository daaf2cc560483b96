from dataclasses import replace

from batsignal.cli.demo_timeline import Line, Moment, Timeline
from batsignal.drills.actors.shoppers import Mood
from batsignal.drills.scene import Leak
from batsignal.drills.watcher import Sighting, SignalSeen

T0 = 1_760_000_000.0
CALM = Sighting(state="up", slots_used=7, slots_usable=97, sessions={"2.3.9": 6}, signals=())
LEAKING = replace(CALM, slots_used=30, sessions={"2.4.0": 29})
GOOD_MOOD = Mood(p50_seconds=0.125, failed_ratio=0.0)
SIGNAL = SignalSeen(
    id="s1",
    kind="leak",
    severity="critical",
    summary="web@2.4.0 leaks connections: 11 held, +0.5/s; slots run out in 2m46s",
    action="Roll back web to 2.3.9. Do not restart the database: it is healthy.",
    evidence=("11 sessions opened, none used again", "ping 0.4 ms"),
    detected=T0 + 36,
)


def make_timeline() -> Timeline:
    return Timeline("http://127.0.0.1:9988/", draws=False)


def moment(t: float, sighting: Sighting | None = CALM, **changes: object) -> Moment:
    plain = Moment(t=t, sighting=sighting, mood=GOOD_MOOD, leak=None, failed_at=None)
    return replace(plain, **changes)  # type: ignore[arg-type]  # a case names only what differs


def texts(lines: list[Line]) -> list[str]:
    return [line.text for line in lines]


def leaking_timeline() -> Timeline:
    timeline = make_timeline()
    timeline.observe(moment(T0 - 10))
    timeline.deploy(T0)
    timeline.observe(moment(T0 + 1, LEAKING, leak=Leak(sessions=1, first_at=T0 + 0.5)))
    return timeline


def test_a_calm_moment_shows_slots_sessions_and_the_shop_in_one_plain_line() -> None:
    assert texts(make_timeline().observe(moment(T0))) == [
        "calm   0:00  slots   7/97  #...................  shop   125 ms   0% failed  web@2.3.9 6"
    ]


def test_the_same_state_is_not_told_again_until_a_while_has_passed() -> None:
    timeline = make_timeline()
    timeline.observe(moment(T0))
    assert timeline.observe(moment(T0 + 1)) == []
    assert timeline.observe(moment(T0 + 4.9)) == []
    assert len(timeline.observe(moment(T0 + 5))) == 1


def test_a_change_is_told_at_once() -> None:
    timeline = make_timeline()
    timeline.observe(moment(T0))
    assert len(timeline.observe(moment(T0 + 1, replace(CALM, slots_used=8)))) == 1


def test_the_deploy_is_told_with_its_version_and_story() -> None:
    told = texts(make_timeline().deploy(T0))
    assert told[1].startswith("--- web 2.4.0 is deployed: its new audit trail")


def test_the_first_lost_session_is_told_with_the_time_the_shop_gives() -> None:
    timeline = make_timeline()
    timeline.deploy(T0)
    told = texts(timeline.observe(moment(T0 + 3, LEAKING, leak=Leak(sessions=1, first_at=T0 + 1))))
    assert told[1] == "*** deploy  +0:01  the first session is lost"
    assert timeline.began_at == T0 + 1


def test_a_signal_is_told_with_summary_evidence_action_page_and_how_long_it_took() -> None:
    timeline = leaking_timeline()
    lines = timeline.observe(moment(T0 + 36, replace(LEAKING, signals=(SIGNAL,))))
    assert texts(lines)[1:] == [
        "",
        "*** deploy  +0:36  SIGNAL LIT: leak (critical), 36 s after the first lost session",
        "    web@2.4.0 leaks connections: 11 held, +0.5/s; slots run out in 2m46s",
        "    - 11 sessions opened, none used again",
        "    - ping 0.4 ms",
        "    => Roll back web to 2.3.9. Do not restart the database: it is healthy.",
        "    http://127.0.0.1:9988/",
        "",
    ]
    assert lines[2].tone == "alarm"


def test_a_signal_that_stays_lit_is_told_once_and_its_end_once() -> None:
    timeline = leaking_timeline()
    lit = replace(LEAKING, signals=(SIGNAL,))
    timeline.observe(moment(T0 + 36, lit))
    assert timeline.observe(moment(T0 + 37, lit)) == []
    assert texts(timeline.observe(moment(T0 + 38, LEAKING)))[1:] == ["*** deploy  +0:38  signal out: leak"]


def test_a_signal_of_another_kind_is_told_but_is_not_the_one_waited_for() -> None:
    timeline = leaking_timeline()
    other = replace(SIGNAL, id="s2", kind="saturation", severity="warning")
    told = texts(timeline.observe(moment(T0 + 36, replace(LEAKING, signals=(other,)))))
    assert "*** deploy  +0:36  SIGNAL LIT: saturation (warning)" in told
    assert timeline.signal_at is None


def test_slots_are_full_when_used_reaches_usable_and_not_one_before() -> None:
    timeline = leaking_timeline()
    timeline.observe(moment(T0 + 100, replace(LEAKING, slots_used=96)))
    assert timeline.full_at is None
    timeline.observe(moment(T0 + 101, replace(LEAKING, slots_used=97)))
    assert timeline.full_at == T0 + 101


def test_slots_are_full_when_the_daemon_itself_is_refused() -> None:
    timeline = leaking_timeline()
    blind = Sighting(state="slots_full", slots_used=None, slots_usable=None, sessions={}, signals=())
    told = texts(timeline.observe(moment(T0 + 101, blind)))
    assert timeline.full_at == T0 + 101
    assert "slots   ?     slots_full" in told[0]


def test_a_daemon_that_does_not_answer_is_said() -> None:
    assert "the daemon does not answer" in make_timeline().observe(moment(T0, None))[0].text


def test_a_shop_that_nobody_asked_shows_no_latency() -> None:
    silent = moment(T0, mood=Mood(p50_seconds=None, failed_ratio=0.0))
    assert "shop   -   ms   0% failed" in make_timeline().observe(silent)[0].text


def test_after_everything_has_happened_it_says_less() -> None:
    timeline = leaking_timeline()
    full = replace(LEAKING, slots_used=97, signals=(SIGNAL,))
    timeline.observe(moment(T0 + 101, full, failed_at=T0 + 100))
    assert timeline.settled
    assert timeline.observe(moment(T0 + 105, replace(full, slots_used=98))) == []
    assert len(timeline.observe(moment(T0 + 106, replace(full, slots_used=98)))) == 1
    assert timeline.observe(moment(T0 + 120, replace(full, slots_used=98))) == []


def test_the_closing_lists_what_came_in_order_of_time_and_then_what_did_not() -> None:
    timeline = leaking_timeline()
    timeline.observe(moment(T0 + 36, replace(LEAKING, signals=(SIGNAL,))))
    timeline.observe(moment(T0 + 172, replace(LEAKING, slots_used=97, signals=(SIGNAL,))))
    assert texts(timeline.closing()) == [
        "",
        "What happened",
        "  +0:00  web 2.4.0 deployed",
        "  +0:00  first session lost",
        "  +0:36  signal lit: leak  (36 s after the first loss)",
        "  +2:52  no slot left  (2m52s after the first loss)",
        "  not yet  the shop turned its first customer away",
    ]


def test_a_demo_ended_before_the_deploy_has_no_closing() -> None:
    timeline = make_timeline()
    timeline.observe(moment(T0))
    assert timeline.closing() == []
