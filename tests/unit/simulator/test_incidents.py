"""Every variation of an incident shows what its truth says, as a look a second shows it."""

import json
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache

import pytest

from batsignal.drills.catalogue import ROWS
from batsignal.drills.truth import Truth
from batsignal.snapshot import Session, Snapshot
from simulator import incidents
from simulator.scenario import Play, build

# What one test has played, the others look at: they stay together.
pytestmark = [pytest.mark.xdist_group("incidents"), pytest.mark.takes(seconds=0.1)]

SEEDS = range(3)
ROW_NAMES = sorted(incidents.BUILDERS)
LEAKS = [name for name in ROW_NAMES if name.startswith("leak")]
# Whose baseline needs a past.
NEEDS_CALM = ["storm", "storm-refused", "storm-reconnect", "pileup-behind-storm", "endpoint-slow", "query-pileup-old"]


@dataclass
class Seen:
    """A variation that has been played, and what its looks showed."""

    play: Play
    truths: tuple[Truth, ...]
    began: float
    ended: float
    looks: list[Snapshot] = field(repr=False)

    def truth(self, kind: str) -> Truth:
        return next(truth for truth in self.truths if truth.kind == kind and not truth.optional)

    def at(self, t: float) -> Snapshot:
        """The first look at that instant or after it."""
        return next(snapshot for snapshot in self.looks if snapshot.t >= t)


@cache
def seen(row: str, seed: int) -> Seen:
    play = build(row, seed, quick=True)
    looks = list(play.looks())
    return Seen(play, play.truths_of(), looks[0].t, looks[-1].t, looks)


def is_of(session: Session, truth: Truth) -> bool:
    subject = truth.subject
    service, _, version = (session.application_name or "").partition("@")
    return all(
        wanted is None or wanted == got
        for wanted, got in (
            (subject.application, service),
            (subject.version, version),
            (subject.user, session.usename),
            (subject.client, session.client_addr),
        )
    )


def test_there_is_a_builder_for_each_incident_and_for_nothing_else() -> None:
    assert set(incidents.BUILDERS) == {name for name, row in ROWS.items() if row.group == "incident"}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("row", ROW_NAMES)
def test_the_truths_are_those_of_the_row_and_lie_within_the_play(row: str, seed: int) -> None:
    one = seen(row, seed)
    required = [truth for truth in one.truths if not truth.optional]
    assert tuple(truth.kind for truth in required) == ROWS[row].kinds
    for truth in required:
        assert one.began < truth.onset < one.ended - truth.bound_seconds - 30, "time enough to be late in"
        assert truth.exhaustion is None or truth.exhaustion > truth.onset
        assert any(value is not None for value in json.loads(json.dumps(truth.as_json()))["subject"].values()) or (
            truth.kind == "database_unreachable"
        )
        if truth.deploy is not None:
            assert truth.deploy.at <= truth.onset + 1
    json.dumps(dict(one.play.facts))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("row", ROW_NAMES)
def test_all_is_well_before_the_onset(row: str, seed: int) -> None:
    one = seen(row, seed)
    # A restart is where its storm comes from; who is only slow to end a transaction hurts nobody yet.
    onset = min(truth.onset for truth in one.truths if not truth.optional or truth.kind == "database_unreachable")
    before = [snapshot for snapshot in one.looks if snapshot.t < onset]
    assert len(before) >= (300 if row in NEEDS_CALM else 60)
    assert all(snapshot.failure is None for snapshot in before)
    assert all(snapshot.used < 0.8 * snapshot.slots.usable for snapshot in before if snapshot.slots)
    assert all(probe.up for snapshot in before for probe in snapshot.probes)


@pytest.mark.parametrize("row", ROW_NAMES)
def test_variations_of_a_row_differ(row: str) -> None:
    facts = [json.dumps(dict(build(row, seed, quick=True).facts), sort_keys=True) for seed in range(20)]
    assert len(set(facts)) == 20


@pytest.mark.parametrize("row", ["leak-many-pods", "lock-pileup-transaction", "pool-starvation"])
def test_the_same_seed_is_the_same_play(row: str) -> None:
    again = build(row, 1, quick=True)
    assert list(again.looks()) == seen(row, 1).looks
    assert again.truths_of() == seen(row, 1).truths


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("row", ROW_NAMES)
def test_a_version_is_seen_from_its_deploy_on_and_not_before(row: str, seed: int) -> None:
    one = seen(row, seed)
    named = {truth.deploy for truth in one.truths if truth.deploy is not None}
    for deploy in named:
        assert deploy.at <= min(truth.onset for truth in one.truths if truth.deploy == deploy)
        name = f"{deploy.service}@{deploy.version}"
        # Behind a pooler a session is older than the version that borrows it: from that moment on it shows its name.
        pooled = row == "pgbouncer-starvation"
        starts = [
            s.state_change if pooled else s.backend_start
            for snapshot in one.looks
            for s in snapshot.sessions
            if s.application_name == name
        ]
        told = any(deploy.service == told.service for snapshot in one.looks for told in snapshot.deploys)
        assert starts or told
        assert all(start is not None and start >= deploy.at - 0.001 for start in starts)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("row", ["query-pileup-old", "storm-reconnect", "idle-in-transaction", "lock-pileup"])
def test_where_nothing_is_deployed_an_application_has_one_version(row: str, seed: int) -> None:
    one = seen(row, seed)
    service = one.play.facts["application"].partition("@")[0]
    names = {
        session.application_name
        for snapshot in one.looks
        for session in snapshot.sessions
        if (session.application_name or "").partition("@")[0] == service
    }
    assert len(names) == 1


@pytest.mark.parametrize("seed", range(6))
def test_an_endpoint_is_down_with_the_third_probe_that_failed(seed: int) -> None:
    one = seen("endpoint-down", seed)
    truth = one.truth("endpoint_down")
    told = [
        snapshot.t
        for snapshot in one.looks
        for probe in snapshot.probes
        if probe.endpoint == truth.subject.endpoint and not probe.up
    ]
    assert truth.onset + truth.bound_seconds >= told[2]
    assert truth.onset + truth.bound_seconds <= told[2] + 3.1


# -- leaks -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("row", LEAKS)
def test_a_leak_leaves_sessions_that_are_used_once_and_never_again(row: str, seed: int) -> None:
    one = seen(row, seed)
    truth = one.truth("leak")
    called_by = one.at(truth.onset + truth.bound_seconds + 10)
    last = {session.key: session for session in one.looks[-1].sessions}
    lost = [
        session
        for session in called_by.sessions
        if is_of(session, truth)
        and session.backend_start >= truth.onset - 0.001
        and session.state_change < session.backend_start + 5
        and last.get(session.key) == session
    ]
    assert len(lost) >= 8
    assert min(session.backend_start for session in lost) == pytest.approx(truth.onset, abs=0.01)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("row", LEAKS)
def test_the_leaking_application_also_works(row: str, seed: int) -> None:
    one = seen(row, seed)
    truth = one.truth("leak")
    used: dict[tuple[int, float | None], set[float | None]] = defaultdict(set)
    for snapshot in one.looks:
        if snapshot.t > truth.onset:
            for session in snapshot.sessions:
                if is_of(session, truth):
                    used[session.key].add(session.query_start)
    assert max(len(starts) for starts in used.values()) > 5


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("row", LEAKS)
def test_the_slots_run_out_when_the_truth_says_so(row: str, seed: int) -> None:
    one = seen(row, seed)
    exhaustion = one.truth("leak").exhaustion
    assert exhaustion is not None
    usable = one.looks[0].slots.usable
    before = [snapshot.used for snapshot in one.looks if snapshot.t < exhaustion]
    assert max(before) < usable
    if exhaustion < one.ended - 5:
        after = [snapshot.used for snapshot in one.looks if exhaustion <= snapshot.t < exhaustion + 10]
        assert max(after) >= usable - 1


@pytest.mark.parametrize(
    ("row", "state"), [("leak-in-transaction", "idle in transaction"), ("leak-client-read", "active")]
)
def test_lost_sessions_rest_in_the_state_of_their_row(row: str, state: str) -> None:
    one = seen(row, 0)
    truth = one.truth("leak")
    lost = [
        session
        for session in one.looks[-1].sessions
        if is_of(session, truth) and session.backend_start >= truth.onset and session.state == state
    ]
    assert len(lost) >= 10
    assert {session.wait_event for session in lost} == {"ClientRead"}
    assert all(session.xact_start is not None for session in lost)


def test_a_leak_over_many_pods_takes_a_little_from_each() -> None:
    one = seen("leak-many-pods", 0)
    truth = one.truth("leak")
    clients = {session.client_addr for session in one.looks[-1].sessions if is_of(session, truth)}
    assert len(clients) >= 12
    assert truth.subject.client is None


# -- pools -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("row", ["pool-starvation", "pgbouncer-starvation"])
def test_a_pool_starves_while_the_server_has_slots_to_spare(row: str, seed: int) -> None:
    one = seen(row, seed)
    assert all(snapshot.used < 0.85 * snapshot.slots.usable for snapshot in one.looks if snapshot.slots)
    truth = one.truth("pool_starvation")
    if row == "pgbouncer-starvation":
        late = [snapshot.pools[0] for snapshot in one.looks if snapshot.t > truth.onset + 1.5]
        assert all(pool.cl_waiting > 0 and pool.sv_idle == 0 for pool in late)
        assert f"{late[0].database}/{late[0].user}" == truth.subject.pool
    else:
        failed = [probe.at for snapshot in one.looks for probe in snapshot.probes if not probe.up]
        first = min(at for at in failed if at >= truth.onset)
        assert truth.onset + truth.bound_seconds == pytest.approx(first + 45, abs=0.1)


# -- pile-ups ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("row", ["query-pileup", "query-pileup-old", "pileup-behind-storm"])
def test_a_pile_up_is_one_statement_in_many_sessions_for_minutes(row: str, seed: int) -> None:
    one = seen(row, seed)
    truth = one.truth("query_pileup")

    def piled(t: float) -> int:
        return sum(
            session.state == "active" and session.statement_id == truth.subject.query_id and is_of(session, truth)
            for session in one.at(t).sessions
        )

    assert piled(truth.onset - 5) <= 3
    assert piled(truth.onset + truth.bound_seconds) >= 8
    assert piled(truth.onset + 60) >= 15


def roots(snapshot: Snapshot) -> Mapping[int, int]:
    """Return, for each who ends a chain of waits, how many wait for it directly or not."""
    blocked_by = {session.pid: session.blocked_by for session in snapshot.sessions}
    count: dict[int, int] = defaultdict(int)
    for pid, blockers in blocked_by.items():
        if not blockers:
            continue
        todo, known = [pid], set()
        while todo:
            here = todo.pop()
            if here not in known:
                known.add(here)
                todo += blocked_by.get(here, ())
        for root in [here for here in known if not blocked_by.get(here)]:
            count[root] += 1
    return count


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("row", ["lock-pileup", "lock-pileup-transaction"])
def test_the_blocker_is_the_root_for_which_all_others_wait(row: str, seed: int) -> None:
    one = seen(row, seed)
    truth = one.truth("lock_pileup")
    waiting = roots(one.at(truth.onset + truth.bound_seconds))
    assert set(waiting) == {truth.subject.blocker}
    assert waiting[truth.subject.blocker] >= 5
    blocker = next(one for one in one.looks[-1].sessions if one.pid == truth.subject.blocker)
    assert blocker.wait_event_type != "Lock"


@pytest.mark.parametrize("seed", range(8))
def test_a_transaction_left_open_blocks_few_or_nobody(seed: int) -> None:
    one = seen("idle-in-transaction", seed)
    truth = one.truth("idle_in_transaction")
    rows = [row for row in one.at(truth.onset + truth.bound_seconds).sessions if is_of(row, truth)]
    held = [row for row in rows if row.state == "idle in transaction" and row.state_change == truth.onset]
    assert len(held) == 1
    waiting = roots(one.looks[-1])
    assert waiting.get(held[0].pid, 0) == one.play.facts["waiters"]


# -- storms ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("row", ["storm", "storm-refused", "storm-reconnect", "pileup-behind-storm"])
def test_a_storm_opens_or_is_refused_far_more_than_usual(row: str, seed: int) -> None:
    one = seen(row, seed)
    truth = one.truth("storm")
    looks = [snapshot for snapshot in one.looks if snapshot.counters is not None]

    def opened(since: float, until: float) -> float:
        inside = [snapshot.counters.sessions for snapshot in looks if since <= snapshot.t <= until]
        return (inside[-1] - inside[0]) / (until - since)

    usual = opened(one.began, truth.onset - 31)
    assert opened(truth.onset, truth.onset + 15) > max(5 * usual, 10)
    if row == "storm-refused":
        assert one.play.world.refusals["slots_full"] > 500


# -- limits ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("row", ["saturation", "saturation-role", "saturation-database"])
def test_a_limit_is_reached_by_sessions_that_are_used(row: str, seed: int) -> None:
    one = seen(row, seed)
    truth = one.truth("saturation")
    kind, _, name = truth.subject.limit.partition(":")
    counted: dict[str, Callable[[Snapshot], float]] = {
        "server": lambda snapshot: snapshot.used / snapshot.slots.usable,
        "role": lambda snapshot: sum(row.usename == name for row in snapshot.sessions) / snapshot.role_limits[name],
        "database": lambda snapshot: (
            sum(row.datname == name for row in snapshot.sessions) / snapshot.database_limits[name]
        ),
    }
    ratio = counted[kind]
    assert max(ratio(snapshot) for snapshot in one.looks if snapshot.t < truth.onset) < 0.8
    must_at = truth.onset + truth.bound_seconds - 10
    assert ratio(one.at(must_at + 0.1)) >= 0.9
    assert truth.exhaustion is not None
    assert ratio(one.at(truth.exhaustion + 0.1)) >= 0.97
    assert ratio(one.looks[-1]) >= 0.9
    used_again = [row for row in one.looks[-1].sessions if row.state_change > row.backend_start + 5]
    assert len(used_again) > 0.6 * len(one.looks[-1].sessions)


# -- endpoints and reachability ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_an_endpoint_fails_for_good_while_the_database_is_fine(seed: int) -> None:
    one = seen("endpoint-down", seed)
    truth = one.truth("endpoint_down")
    probes = [probe for snapshot in one.looks for probe in snapshot.probes if probe.endpoint == truth.subject.endpoint]
    assert all(probe.up == (probe.at < truth.onset) for probe in probes)
    third = [probe.at + probe.seconds for probe in probes if not probe.up][2]
    assert third - truth.onset <= truth.bound_seconds
    assert all(snapshot.failure is None and snapshot.ping_seconds < 0.01 for snapshot in one.looks)


@pytest.mark.parametrize("seed", SEEDS)
def test_an_endpoint_becomes_slow_but_stays_up(seed: int) -> None:
    one = seen("endpoint-slow", seed)
    truth = one.truth("endpoint_slow")
    probes = [probe for snapshot in one.looks for probe in snapshot.probes if probe.endpoint == truth.subject.endpoint]
    assert all(probe.up for probe in probes)
    usual = [probe.seconds for probe in probes if probe.at < truth.onset - 25]
    slow = [probe.seconds for probe in probes if probe.at >= truth.onset + 25]
    assert min(slow) > 3 * max(usual)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_server_that_goes_away_stays_away(seed: int) -> None:
    one = seen("database-unreachable", seed)
    truth = one.truth("database_unreachable")
    assert all((snapshot.failure is not None) == (snapshot.t >= truth.onset) for snapshot in one.looks)
