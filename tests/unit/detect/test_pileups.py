import json
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from batsignal.detect.pileups import PileupDetector
from batsignal.detect.statement_past import QUICK_MOST, USUAL_MOST
from batsignal.snapshot import PollFailure, ProbeResult, Slots, Snapshot

SLOW = "SELECT p.* FROM products p WHERE p.name ILIKE ?"
HOUR = 3600.0

Row = Callable[..., Any]
Show = Callable[..., Any]


def pool(row: Row, t: float, *, sessions: int = 10, **facts: Any) -> Iterator[Any]:
    """A service at work: sessions that are lent again and again, for moments."""
    for n in range(sessions):
        used_at = t - (t + n) % 3 - 0.1
        yield row(100 + n, "idle", at=used_at, wait_event_type="Client", wait_event="ClientRead", **facts)


def pile(row: Row, t: float, *, since: float, rate: float = 1.0, most: int = 60, **facts: Any) -> Iterator[Any]:
    """Executions that come one by one and do not end; each takes a session that the pool has, else a new one."""
    facts = {"query": SLOW, "query_id": "815", "client_addr": "10.0.0.4"} | facts
    for n in range(most):
        at = since + n / rate
        if at <= t:
            yield row(500 + n, "active", at=at, xact_start=at, opened=facts.pop("opened", at - 0.1), **facts)


def piling(row: Row, t: float, **facts: Any) -> Iterator[Any]:
    yield from pool(row, t)
    yield from pile(row, t, **{"since": 400.0} | facts)


@pytest.mark.parametrize("rate", [0.75, 2.0, 6.0])
def test_pile_up_is_called_within_its_bound_with_its_statement(
    row: Row, show: Show, watcher: Any, start: float, rate: float
) -> None:
    show(watcher, lambda t: piling(row, t, rate=rate), 430)
    (raised,) = watcher.raised("query_pileup")
    assert raised.t - start - 400 <= 14
    finding = raised.signal.finding
    assert finding.severity == "critical"
    assert (finding.subject.application, finding.subject.version, finding.subject.query_id) == ("web", "1.0", "815")
    assert finding.since == start + 400
    assert finding.harmless_at is None
    assert any(SLOW in one for one in finding.evidence)
    assert "of the slots" in finding.summary
    assert not watcher.cleared("query_pileup")


def test_time_left_is_told_from_how_the_pile_grows_and_not_from_the_calm_before_it(
    row: Row, show: Show, watcher: Any
) -> None:
    show(watcher, lambda t: piling(row, t, rate=4.0), 420)
    (raised,) = watcher.raised("query_pileup")
    assert raised.t - raised.signal.finding.since < 15, "some of the last 15 s were calm"
    taken = raised.signal.finding.sessions + 10
    room = 97 - taken
    assert raised.signal.finding.exhaustion_seconds == pytest.approx(room / 4.0, rel=0.2)


def test_old_statement_says_until_when_it_was_harmless(row: Row, show: Show, watcher: Any, start: float) -> None:
    def scene(t: float) -> Iterator[Any]:
        yield from pool(row, min(t, 400.0), query=SLOW, query_id="815")
        yield from pile(row, t, since=400.5)

    show(watcher, scene, 420)
    finding = watcher.raised("query_pileup")[0].signal.finding
    assert finding.harmless_at is not None
    assert start + 395 <= finding.harmless_at <= start + 400
    assert "The statement is an old one" in finding.action


def test_statement_that_was_seen_for_moments_only_is_not_called_old(row: Row, show: Show, watcher: Any) -> None:
    def scene(t: float) -> Iterator[Any]:
        yield from pool(row, t)
        if t > 395:  # a deploy brought it, and its first customers were small
            yield row(300, "idle", at=395, query=SLOW, query_id="815")
        yield from pile(row, t, since=400.0)

    show(watcher, scene, 420)
    assert watcher.raised("query_pileup")[0].signal.finding.harmless_at is None


def test_pools_that_are_taken_at_once_and_cannot_grow_are_called_within_the_bound(
    row: Row, show: Show, watcher: Any, start: float
) -> None:
    def scene(t: float) -> Iterator[Any]:
        for n in range(12):
            at = 400.0 + 0.2 * n
            if t < at:
                yield row(500 + n, "idle", at=t - 1, opened=0.0)
            else:
                yield row(500 + n, "active", at=at, opened=0.0, query=SLOW)

    show(watcher, scene, 420)
    (raised,) = watcher.raised("query_pileup")
    assert raised.t - start - 400 <= 14


@pytest.mark.parametrize("long", [5, 6])
def test_six_sessions_are_a_pile_and_five_are_not(row: Row, show: Show, watcher: Any, long: int) -> None:
    show(watcher, lambda t: piling(row, t, most=long, rate=1.0, opened=0.0), 440)
    assert bool(watcher.raised("query_pileup")) == (long == 6)


def mixed(row: Row, t: float, *, busy_from: float, bad_from: float = 9e9) -> Iterator[Any]:
    """One statement, quick but for one of ten that takes half a minute; after a lull it is asked for again and again.

    From `bad_from` on its plan has turned bad: all that begins of it takes for ever.
    """
    facts = {"query": SLOW, "query_id": "815", "opened": 0.0}
    slow = [100.0, 200.0, 300.0, *(busy_from + 1.25 * n for n in range(80))]
    for n, at in enumerate(slow):
        if at <= t < at + 30 and at < bad_from:
            yield row(500 + n % 24, "active", at=at, xact_start=at, **facts)
    for n in range(12):
        used_at = t - 0.3 if t >= busy_from else t // 60 * 60 - 0.2
        yield row(100 + n, "idle", at=max(min(used_at, bad_from), 0.5), **facts)
    yield from pile(row, t, since=bad_from + 0.1, rate=3.0, most=90, **facts)


def test_traffic_that_comes_back_after_a_lull_is_no_pile_up_while_most_of_it_ends_quickly(
    row: Row, show: Show, watcher: Any
) -> None:
    show(watcher, lambda t: mixed(row, t, busy_from=400.0), 520)
    assert not watcher.events, watcher.sentences()


def test_statement_with_slow_ones_among_its_quick_ones_piles_up_once_none_is_quick(
    row: Row, show: Show, watcher: Any, start: float
) -> None:
    show(watcher, lambda t: mixed(row, t, busy_from=400.0, bad_from=460.0), 500)
    (raised,) = watcher.raised("query_pileup")
    assert raised.t - start - 460 <= 15
    assert raised.signal.finding.severity == "critical"


def test_slow_ones_among_quick_ones_warn_when_they_gather_and_wake_once_the_quick_ones_find_no_session(
    row: Row, show: Show, watcher: Any
) -> None:
    facts = {"query": SLOW, "query_id": "815", "opened": 0.0}

    def scene(t: float) -> Iterator[Any]:
        for n, at in enumerate((100.0, 200.0, 300.0)):
            if at <= t < at + 30:
                yield row(50 + n, "active", at=at, xact_start=at, **facts)
        yield from pile(row, t, since=400.0, rate=0.4, most=48, **facts)
        for n in range(12):
            begun = 520.0 + 0.3 * n
            if t < begun:
                yield row(100 + n, "idle", at=t - 0.3, **facts)
            else:
                yield row(100 + n, "active", at=begun, xact_start=begun, **facts)

    show(watcher, scene, 515, used=197)
    (raised,) = watcher.raised("query_pileup")
    assert raised.signal.finding.severity == "warning"
    assert "ends as quickly as ever" in raised.signal.finding.action
    show(watcher, scene, 540, begin=515, used=197)
    assert [finding.severity for finding in watcher.now if finding.kind == "query_pileup"] == ["critical"]


def test_unnamed_service_and_server_without_ids_are_told_by_user_and_fingerprint(
    row: Row, show: Show, watcher: Any
) -> None:
    def scene(t: float) -> Iterator[Any]:
        yield from pool(row, t, application_name="psql")
        yield from pile(row, t, since=400.0, application_name="psql", query_id=None)

    show(watcher, scene, 420)
    subject = watcher.raised("query_pileup")[0].signal.finding.subject
    assert (subject.application, subject.user) == (None, "web")
    assert subject.query_id is not None
    assert len(subject.query_id) == 12


def test_statement_with_an_id_for_each_tenant_is_one_pile_up(row: Row, show: Show, watcher: Any) -> None:
    def scene(t: float) -> Iterator[Any]:
        yield from pool(row, t)
        for tenant in range(5):
            yield from (
                row(session.pid + 100 * tenant, "active", at=400.0 + 5 * n + tenant, query=SLOW, query_id=f"{tenant}")
                for n, session in enumerate(pile(row, 9e9, since=0.0, most=20))
                if t >= 400.0 + 5 * n + tenant
            )

    show(watcher, scene, 420)
    (raised,) = watcher.raised("query_pileup")
    assert raised.signal.finding.subject.query_id is None


def test_batch_of_thirty_that_starts_within_half_a_minute_lights_nothing(row: Row, show: Show, watcher: Any) -> None:
    def scene(t: float) -> Iterator[Any]:
        yield from pool(row, t)
        begun = (t - 100) // 600 * 600 + 100
        if t >= 100 and t - begun < 200:
            yield from pile(row, t, since=begun, rate=1.2, most=30, application_name="nightly-import")

    show(watcher, scene, 2000)
    assert not watcher.events, watcher.sentences()


def test_first_ever_batch_started_bit_by_bit_wakes_nobody_while_there_is_room(
    row: Row, show: Show, watcher: Any
) -> None:
    facts = {"since": 400.0, "rate": 0.5, "most": 40, "application_name": "backfill"}
    show(watcher, lambda t: [*pool(row, t), *pile(row, t, **facts)], 600)
    assert {one.signal.finding.severity for one in watcher.raised("query_pileup")} == {"warning"}
    assert watcher.now[0].severity == "warning"


def test_the_same_batch_wakes_somebody_once_the_slots_are_going(row: Row, show: Show, watcher: Any) -> None:
    facts = {"since": 400.0, "rate": 0.5, "most": 80, "application_name": "backfill"}
    show(watcher, lambda t: [*pool(row, t), *pile(row, t, **facts)], 540, used=50)
    assert watcher.at(500, "query_pileup").severity == "critical"
    assert len(watcher.raised("query_pileup")) == 1


def quick_and_popular(row: Row, t: float) -> Iterator[Any]:
    """Seen in many sessions at every look, each for moments; traffic doubles."""
    for n in range(20 if t < 500 else 40):
        yield row(100 + n, "active", at=t - 0.05 * (n % 10), opened=-100.0, query=SLOW)


def slow_and_usual(row: Row, t: float) -> Iterator[Any]:
    """Takes a minute, a dozen at a time, as always; then half as many more, with the traffic."""
    for n in range(12 if t < 800 else 18):
        yield row(100 + n, "active", at=t - (t + 5 * n) % 60, opened=-100.0, query=SLOW)


def queue_for_a_lock(row: Row, t: float) -> Iterator[Any]:
    """They wait until they are let through all at once, and then run for a few seconds."""
    yield from pool(row, t)
    for n in range(40):
        at = 400.0 + n
        if at <= t < 450:
            yield row(500 + n, "active", at=at, query=SLOW, wait_event_type="Lock", blocked_by=(7,))
        elif at <= t < 458:
            yield row(500 + n, "active", at=at, query=SLOW)


def fed_by_their_clients(row: Row, t: float) -> Iterator[Any]:
    yield from pool(row, t)
    facts = {"wait_event_type": "Client", "wait_event": "ClientWrite", "query": "COPY t TO stdout"}
    yield from pile(row, t, since=400.0, **facts)


def copies_of_whose_waits_nothing_is_told(row: Row, t: float) -> Iterator[Any]:
    yield from pool(row, t)
    yield from pile(row, t, since=400.0, query="COPY import_rows FROM STDIN")


def commits_on_a_slow_disk(row: Row, t: float) -> Iterator[Any]:
    yield from pool(row, t)
    yield from pile(row, t, since=400.0, query="COMMIT", wait_event_type="IO", wait_event="WALSync")


def everything_is_slow(row: Row, t: float) -> Iterator[Any]:
    """Ten statements at once: none of them is to blame."""
    yield from pool(row, t)
    for n in range(60):
        if 400 + 0.3 * n <= t:
            yield row(500 + n, "active", at=400 + 0.3 * n, query=f"SELECT * FROM t{n % 8}")


def workers_of_one_query(row: Row, t: float) -> Iterator[Any]:
    yield from pool(row, t)
    if t > 400:
        yield row(500, "active", at=400, query=SLOW)
        for n in range(16):
            yield row(600 + n, "active", at=400, query=SLOW, backend_type="parallel worker", leader_pid=500)


def asked_by_ten_people_at_once(row: Row, t: float) -> Iterator[Any]:
    """A report of eight seconds."""
    yield from pool(row, t)
    for n in range(10):
        if 400 + n <= t < 408 + n:
            yield row(500 + n, "active", at=400.0 + n, query=SLOW)


@pytest.mark.parametrize(
    "scene",
    [
        quick_and_popular,
        slow_and_usual,
        queue_for_a_lock,
        fed_by_their_clients,
        copies_of_whose_waits_nothing_is_told,
        commits_on_a_slow_disk,
        everything_is_slow,
        workers_of_one_query,
        asked_by_ten_people_at_once,
    ],
)
def test_what_is_no_pile_up_lights_nothing(
    row: Row, show: Show, make_watcher: Any, scene: Callable[[Row, float], Iterator[Any]]
) -> None:
    always, restarted = make_watcher(), make_watcher()
    show(always, lambda t: scene(row, t), 1000)
    show(restarted, lambda t: scene(row, t), 1000, begin=640)
    for watcher in (always, restarted):
        assert not watcher.raised("query_pileup"), watcher.sentences()


def test_signal_ends_when_the_pile_does_and_is_one_while_timeouts_end_its_statements(
    row: Row, show: Show, watcher: Any, start: float
) -> None:
    def scene(t: float) -> Iterator[Any]:
        yield from pool(row, t)
        if t < 500:  # each is given up after 30 s, and others come
            yield from (one for one in pile(row, t, since=400.0, most=200) if t - one.query_start + start < 30)

    show(watcher, scene, 540)
    assert len(watcher.raised("query_pileup")) == 1
    (cleared,) = watcher.cleared("query_pileup")
    assert 505 <= cleared.t - start <= 515


def test_second_statement_that_is_slowed_by_the_first_is_not_told(row: Row, show: Show, watcher: Any) -> None:
    def scene(t: float) -> Iterator[Any]:
        yield from pool(row, t)
        yield from pile(row, t, since=400.0, rate=2.0)
        for n in range(15):
            if 420 + n <= t:
                yield row(800 + n, "active", at=420.0 + n, query="SELECT other FROM t", application_name="billing@2")

    show(watcher, scene, 460)
    (raised,) = watcher.raised("query_pileup")
    assert raised.signal.finding.subject.application == "web"


@pytest.mark.parametrize("service", ["newcomer", "web"])
def test_pile_up_of_a_service_that_starts_with_it_wakes_within_the_bound_where_its_health_is_asked_for(
    row: Row, watcher: Any, start: float, service: str
) -> None:
    """Who has a health endpoint is no batch; of another, so little is a batch as far as anybody can tell."""
    for n in range(40):
        t = 400.4 + n
        rows = (*pool(row, t), *pile(row, t, since=410.0, application_name="newcomer@1.0"))
        probe = ProbeResult(endpoint="health", service=service, at=start + t, up=True, seconds=0.01)
        slots = Slots(max=203, superuser_reserved=3)
        watcher.look(Snapshot(server="db1", t=start + t, sessions=rows, slots=slots, probes=(probe,) * (n % 5 == 0)))
    raised = watcher.raised("query_pileup")
    if service == "web":
        assert not raised, watcher.sentences()
    else:
        assert [(one.signal.finding.severity, one.t - start - 410 <= 15) for one in raised] == [("critical", True)]


POOLER = {"usename": "shop", "client_addr": "10.0.0.9"}


def two_services(row: Row, t: float, *, share: int = 2, **facts: Any) -> Iterator[Any]:
    """Two services behind one pooler run a statement that does not end; every so many of it is the second's."""
    for name, first in (("web@1.0", 100), ("api@7", 200)):
        for n in range(8):
            used_at = t - (t + n) % 3 - 0.1
            yield row(first + n, "idle", at=used_at, application_name=name, **POOLER)
    for n in range(60):
        at = 400.0 + n
        if at <= t:
            second = n % share == share - 1
            mine = POOLER | ({"application_name": "api@7"} | facts if second else {})
            yield row(500 + n, "active", at=at, opened=300.0, query=SLOW, query_id="815", **mine)


def test_statement_that_two_services_pile_up_is_one_signal_that_names_both(
    row: Row, show: Show, watcher: Any, start: float
) -> None:
    show(watcher, lambda t: two_services(row, t), 460)
    (raised,) = watcher.raised("query_pileup")
    assert raised.t - start - 400 <= 15
    found = watcher.now[0]
    assert (found.subject.application, found.subject.user, found.subject.database) == (None, "shop", "shop")
    assert (found.subject.client, found.subject.query_id) == ("10.0.0.9", "815")
    assert found.summary.startswith("one statement of api@7 and web@1.0 piles up: 60 sessions run it at once")
    assert "they are of web@1.0 29, api@7 28" in found.evidence
    assert found.sessions == 60
    assert found.severity == "critical"


def test_service_that_runs_a_little_of_what_another_piles_up_is_not_named_for_it(
    row: Row, show: Show, watcher: Any
) -> None:
    show(watcher, lambda t: two_services(row, t, share=6), 440)
    (raised,) = watcher.raised("query_pileup")
    assert raised.signal.finding.subject.application == "web"
    assert "api" not in watcher.now[0].summary


def test_statement_of_one_text_in_two_databases_is_two_and_the_smaller_is_a_symptom(
    row: Row, show: Show, watcher: Any
) -> None:
    show(watcher, lambda t: two_services(row, t, share=3, datname="other"), 440)
    (raised,) = watcher.raised("query_pileup")
    assert (raised.signal.finding.subject.application, raised.signal.finding.subject.database) == ("web", "shop")
    assert watcher.now[0].sessions == 27


def test_service_that_joins_a_pile_up_later_is_named_in_the_signal_that_is_lit(
    row: Row, show: Show, watcher: Any
) -> None:
    def scene(t: float) -> Iterator[Any]:
        for one in two_services(row, t):
            if one.application_name == "web@1.0" or one.state == "idle" or t > 430:
                yield one

    show(watcher, scene, 460)
    (raised,) = watcher.raised("query_pileup")
    assert raised.signal.finding.subject.application == "web"
    assert raised.signal.raised_as.application == "web"
    assert "web@1.0 and api@7" in watcher.now[0].summary
    assert not watcher.cleared("query_pileup")


def test_pile_up_of_two_services_goes_on_as_one_when_the_first_is_rid_of_it(row: Row, show: Show, watcher: Any) -> None:
    def scene(t: float) -> Iterator[Any]:
        for one in two_services(row, t):
            if one.application_name == "api@7" or one.state == "idle" or t < 430:
                yield one

    show(watcher, scene, 460)
    assert len(watcher.raised("query_pileup")) == 1
    assert not watcher.cleared("query_pileup")
    assert watcher.now[0].subject.application == "api"


def test_batches_of_many_names_that_run_one_statement_are_no_service(row: Row, show: Show, watcher: Any) -> None:
    def scene(t: float) -> Iterator[Any]:
        yield from pool(row, t)
        for n in range(40):  # each run of a job has a name of its own, and is gone after it
            at = 400.0 + n
            if at <= t < at + 30:
                yield row(500 + n, "active", at=at, opened=at, query=SLOW, application_name=f"job-{n // 4}")

    show(watcher, scene, 500)
    assert not watcher.raised("query_pileup"), watcher.sentences()


def test_daemon_that_starts_in_the_middle_calls_what_grows_on_with_its_true_onset(
    row: Row, show: Show, watcher: Any, start: float
) -> None:
    show(watcher, lambda t: piling(row, t), 450, begin=420)
    (raised,) = watcher.raised("query_pileup")
    assert raised.signal.finding.since == start + 400


def test_gap_neither_raises_nor_clears(row: Row, show: Show, watcher: Any, start: float) -> None:
    show(watcher, lambda t: piling(row, t), 415)
    for n in range(120):
        failure = PollFailure(reason="timeout", text="no answer")
        watcher.look(Snapshot(server="db1", t=start + 415.4 + n, failure=failure))
        assert "query_pileup" in {one.kind for one in watcher.now}
    show(watcher, lambda t: piling(row, t), 560, begin=536)
    assert len(watcher.raised("query_pileup")) == 1
    assert not watcher.cleared("query_pileup")


def test_rows_without_texts_times_or_names_are_borne(row: Row, show: Show, watcher: Any) -> None:
    bare = {"query": None, "query_id": None, "application_name": None, "usename": None, "datname": None}

    def scene(_t: float) -> Iterator[Any]:
        for n in range(20):
            session = row(500 + n, "active" if n % 2 else None, **bare)
            yield type(session)(
                **{name: getattr(session, name) for name in session.__slots__}
                | {"query_start": None, "state_change": None, "backend_start": None}
            )

    show(watcher, scene, 40)
    assert not watcher.events


def test_memory_of_statements_is_bounded(row: Row, show: Show, watcher: Any) -> None:
    def scene(t: float) -> Iterator[Any]:
        for n in range(400):
            name = f"SELECT {int(t)}_{n}"
            yield row(500 + n, "active", at=t - 5, query=name, application_name=f"app{int(t) % 30}")
            yield row(2000 + n, "idle", at=t - 0.1, query=f"{name} quick")

    show(watcher, scene, 30, used=2000)
    statements = watcher._life._judge._pileups._statements
    assert len(statements._known) <= 2_000
    assert len(statements._quick) <= 4_000


# -- from life to life -------------------------------------------------------------------------------------------------


def reports_of_a_dozen(row: Row, t: float) -> Iterator[Any]:
    """A dozen people ask for a report of 40 s, one after the other, twice."""
    yield from pool(row, t)
    for begin in (400.0, 1000.0):
        for n in range(12):
            if begin + n <= t < begin + n + 40:
                yield row(500 + n, "active", at=begin + n, opened=begin - 100.0, query=SLOW)


def reborn(before: Any, after: Any) -> Any:
    """Give a new life what the one before remembered, as the store keeps it."""
    assert after._life._judge.recall(json.loads(json.dumps(before._life._judge.remembered()))) == ()
    return after


def test_what_is_usual_of_a_statement_outlives_a_restart(row: Row, show: Show, make_watcher: Any) -> None:
    def scene(t: float) -> Iterator[Any]:
        return reports_of_a_dozen(row, t)

    first, forgetful = make_watcher(), make_watcher()
    show(first, scene, 600)
    assert first.raised("query_pileup")  # nobody had seen it
    second = reborn(first, make_watcher())
    show(second, scene, 900, begin=600)
    third = reborn(second, make_watcher())  # also what it had no occasion to see again
    for watcher in (third, forgetful):
        show(watcher, scene, 1060, begin=900)
    assert not third.raised("query_pileup")
    assert forgetful.raised("query_pileup")


def test_a_pile_up_that_is_lit_does_not_become_usual_by_a_restart(row: Row, show: Show, make_watcher: Any) -> None:
    first = make_watcher()
    show(first, lambda t: piling(row, t), 430)
    second = reborn(first, make_watcher())
    show(second, lambda t: piling(row, t), 450, begin=432)
    assert second.raised("query_pileup")


def test_until_when_a_statement_was_harmless_is_known_after_a_restart(
    row: Row, show: Show, make_watcher: Any, start: float
) -> None:
    def scene(t: float) -> Iterator[Any]:
        yield from pool(row, min(t, 400.0), query=SLOW, query_id="815")
        yield from pile(row, t, since=470.5)

    first = make_watcher()
    show(first, scene, 380)
    second = reborn(first, make_watcher())
    show(second, scene, 490, begin=401)
    finding = second.raised("query_pileup")[0].signal.finding
    assert finding.harmless_at == pytest.approx(start + 400, abs=25)


@pytest.mark.parametrize(
    "memory",
    [
        {},
        {"usual": []},
        {"usual": [[["service", "web"], "abc", 1.0]], "quick": []},
        {"usual": [["web", "abc", 1.0, 2]], "quick": []},
        {"usual": [[["service", "web"], "abc", "x", 2]], "quick": []},
        {"usual": [[["service", "web"], "abc", 1.0, -2]], "quick": []},
        {"usual": [], "quick": [["abc", math.inf, 2.0]]},
        {"usual": [], "quick": [[1, 1.0, 2.0]]},
    ],
)
def test_a_past_of_statements_that_does_not_fit_is_refused(memory: Any) -> None:
    with pytest.raises((ValueError, TypeError, KeyError)):
        PileupDetector().recall(memory)


def test_the_past_of_statements_is_bounded_and_holds_no_text(row: Row, show: Show, make_watcher: Any) -> None:
    def scene(t: float) -> Iterator[Any]:
        for n in range(200):
            yield row(500 + n, "active", at=t - 10, opened=-100.0, query=f"SELECT secret_{n}_{int(t) // 20} FROM t")
            yield row(900 + n, "idle", at=t - 0.1, opened=-100.0, query=f"SELECT quick_{n}_{int(t)} FROM t")

    watcher = make_watcher()
    show(watcher, scene, 140)
    memory = watcher._life._judge.remembered()["pileups"]
    assert 500 <= len(memory["usual"]) <= USUAL_MOST
    assert 1000 <= len(memory["quick"]) <= QUICK_MOST
    assert "SELECT" not in json.dumps(memory)
