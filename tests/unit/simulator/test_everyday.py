"""Everyday life as it is simulated: every variation shows what its row says, and gives back what it takes."""

import gc
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from typing import Any

import pytest

from batsignal.drills.catalogue import ROWS
from batsignal.snapshot import Session, Snapshot
from simulator.everyday import BUILDERS, RESTARTED_IN
from simulator.jobs import BACKFILL_QUERY, BATCH_QUERY
from simulator.scenario import Play
from simulator.seats import Seat
from simulator.traps import TRAPS
from simulator.world import START

# What one test has played, the others look at: they stay together.
pytestmark = [pytest.mark.xdist_group("everyday"), pytest.mark.takes(seconds=0.3)]

EVERYDAY = sorted(name for name, row in ROWS.items() if row.group in {"everyday", "hard pair"})
SEEDS = (0, 1)
EVERY_VARIATION = [(row, seed) for row in EVERYDAY for seed in SEEDS]


@dataclass
class Shown:
    """What the looks of one variation showed, kept only as far as tests ask for it."""

    play: Play
    first_at: float = 0.0
    peak_ratio: float = 0.0
    looks: list[float] = field(default_factory=list)
    """The times of the looks, in seconds from the first."""
    failures: list[tuple[float, str]] = field(default_factory=list)
    rows: dict[tuple[int, float | None], list[tuple[float, Session]]] = field(default_factory=dict)
    """Every session's rows, each with the time at which it was first shown so."""
    last_seen: dict[tuple[int, float | None], float] = field(default_factory=dict)
    used: list[int] = field(default_factory=list)
    established: list[int] = field(default_factory=list)
    failed_probes: int = 0
    lost: list[str] = field(default_factory=list)

    def add(self, snapshot: Snapshot) -> None:
        t = snapshot.t - self.first_at
        self.looks.append(t)
        self.failed_probes += sum(not probe.up for probe in snapshot.probes)
        if snapshot.failure is not None:
            self.failures.append((t, snapshot.failure.reason))
            return
        assert snapshot.slots is not None
        self.peak_ratio = max(self.peak_ratio, snapshot.used / snapshot.slots.usable)
        self.used.append(snapshot.used)
        if snapshot.counters is not None and snapshot.counters.sessions is not None:
            self.established.append(snapshot.counters.sessions)
        for session in snapshot.sessions:
            rows = self.rows.setdefault(session.key, [])
            if not rows or rows[-1][1] is not session:
                assert not rows or rows[-1][1] != session, "an unchanged row must stay the same object"
                rows.append((t, session))
            self.last_seen[session.key] = t

    def sessions(self, fits: Callable[[Session], bool]) -> dict[Any, list[tuple[float, Session]]]:
        """Return the rows of each session that ever showed one that fits."""
        return {key: rows for key, rows in self.rows.items() if any(fits(row) for _, row in rows)}

    def counts(self, fits: Callable[[Session], bool]) -> list[int]:
        """Return at each look that succeeded how many sessions were there that ever fitted."""
        steps: Counter[float] = Counter()
        for key, rows in self.sessions(fits).items():
            steps[rows[0][0]] += 1
            steps[self.last_seen[key] + 0.5] -= 1
        order = sorted(steps.items())
        counts, held, index = [], 0, 0
        for t in self.looks:
            while index < len(order) and order[index][0] <= t:
                held += order[index][1]
                index += 1
            counts.append(held)
        return counts


@cache
def shown(row: str, seed: int) -> Shown:
    """Run a variation once for all tests of this module."""
    play = BUILDERS[row](seed, True)
    seen = Shown(play, first_at=START + play.world.elapsed)
    for snapshot in play.looks():
        seen.add(snapshot)
    seen.lost = lost_sessions(play)
    return seen


def lost_sessions(play: Play) -> list[str]:
    """Return the sessions that no process of the world can use or close again.

    Taken literally: whoever could still use a session refers to it. What nobody but the server refers to is lost.
    """
    clients = {id(seat): repr(seat) for seat in play.world.seats.values() if seat.backend_type == "client backend"}
    play.world.seats.clear()
    gc.collect()
    # No session is opened in between, so an address that is still one of a session's is that session's.
    alive = {id(one) for one in gc.get_objects() if type(one) is Seat}
    return [text for address, text in clients.items() if address not in alive]


def test_every_row_of_everyday_life_and_of_the_hard_pairs_has_a_builder() -> None:
    assert sorted(BUILDERS) == EVERYDAY


@pytest.mark.parametrize(("row", "seed"), EVERY_VARIATION)
def test_variation_is_everyday_life(row: str, seed: int) -> None:
    seen = shown(row, seed)
    assert seen.play.row == row
    assert seen.play.truths_of() == ()
    assert json.loads(json.dumps(seen.play.facts)) == seen.play.facts
    assert len(seen.looks) == pytest.approx(seen.play.seconds, abs=2)
    assert all(0.99 < later - earlier < 1.01 for earlier, later in pairwise(seen.looks))
    # Nobody is refused, no limit is near, no endpoint is in trouble: nothing that a person would want to hear of.
    assert seen.peak_ratio < 0.8
    assert not seen.play.world.refusals - Counter(refused=10**6, not_accepting=10**6)
    assert not seen.failed_probes
    if row != "server-restart":
        assert not seen.failures
        assert not seen.play.world.refusals


@pytest.mark.parametrize(("row", "seed"), EVERY_VARIATION)
def test_no_session_is_lost_at_the_end(row: str, seed: int) -> None:
    assert not shown(row, seed).lost


def test_session_that_nobody_can_use_again_is_told_as_lost() -> None:
    play = BUILDERS["pool-warm-up"](0, True)
    play.world.open("careless")
    for _ in play.looks():
        pass
    assert ["careless" in text for text in lost_sessions(play)] == [True]


@pytest.mark.parametrize("row", EVERYDAY)
def test_same_seed_makes_the_same_snapshots(row: str) -> None:
    def hashes() -> Iterator[int]:
        play = BUILDERS[row](4, True)
        for n, snapshot in enumerate(play.looks()):
            if n % 50 == 0:
                yield hash((snapshot.t, snapshot.sessions, snapshot.counters, snapshot.ping_seconds))
            if n == 350:
                return

    assert list(hashes()) == list(hashes())


@pytest.mark.parametrize("row", EVERYDAY)
def test_other_seeds_make_other_variations(row: str) -> None:
    facts = [BUILDERS[row](seed, True).facts for seed in range(6)]
    assert len({json.dumps(one, sort_keys=True) for one in facts}) == 6
    assert len({one["slots"] for one in facts}) > 1


def test_every_trap_is_met_somewhere_and_noted_among_the_facts() -> None:
    met = {trap for row in ("autoscaling", "short-lock-waits") for seed in range(16) for trap in _traps(row, seed)}
    assert met == set(TRAPS)


def _traps(row: str, seed: int) -> list[str]:
    return list(BUILDERS[row](seed, True).facts["traps"])


# -- row by row ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_batch_of_thirty_opens_and_closes_every_ten_minutes(seed: int) -> None:
    seen = shown("cron-batch", seed)
    facts = seen.play.facts
    counts = seen.counts(lambda row: row.query == BATCH_QUERY)
    assert 24 <= facts["sessions"] <= 36
    rises = [seen.looks[n] for n in range(1, len(counts)) if counts[n] and not counts[n - 1]]
    rounds = [t for t in rises if t >= facts["first_seconds"] - 1]
    assert len(rounds) == 2
    assert rounds[1] - rounds[0] == pytest.approx(600, abs=facts["jitter_seconds"] + 2)
    most = max(counts)
    assert most == facts["sessions"] or (facts["shape"] == "drains" and most > 0.6 * facts["sessions"])
    full_at = seen.looks[counts.index(most, seen.looks.index(rounds[0]))]
    assert full_at - rounds[0] <= 1.5 * facts["opened_within_seconds"] + 2
    assert counts[-1] == 0


@pytest.mark.parametrize("seed", SEEDS)
def test_rolling_deploy_has_old_and_new_side_by_side_for_two_minutes(seed: int) -> None:
    seen = shown("rolling-deploy", seed)
    facts = seen.play.facts
    old, new = facts["hosts_old"], facts["hosts_new"]
    olds = seen.counts(lambda row: row.client_addr in old)
    news = seen.counts(lambda row: row.client_addr in new)
    onset = facts["onset_seconds"]
    both = [t for t, a, b in zip(seen.looks, olds, news, strict=True) if a and b]
    assert both[0] >= onset - 1
    overlap = both[-1] - both[0]
    assert 100 <= overlap <= 120 + facts["pod_gap_seconds"] * facts["pods"] + 5
    assert olds[-1] == 0
    assert news[-1] > 0
    if facts["rate_per_second"] == 0.0:
        middle = seen.looks.index(next(t for t in seen.looks if t > onset + 115))
        assert olds[middle] + news[middle] >= 1.8 * olds[int(onset) - 10]


@pytest.mark.parametrize("seed", SEEDS)
def test_old_side_of_blue_and_green_is_idle_until_it_is_closed(seed: int) -> None:
    seen = shown("blue-green", seed)
    facts = seen.play.facts
    switch = facts["switch_seconds"]
    blue = seen.sessions(lambda row: row.client_addr in facts["hosts_old"])
    used_late = [
        t
        for rows in blue.values()
        for (t, row), (_, before) in zip(rows[1:], rows, strict=False)
        if t > switch + 60 and row.query_start != before.query_start
    ]
    assert not used_late
    counts = seen.counts(lambda row: row.client_addr in facts["hosts_old"])
    assert counts[int(switch) + 300] > 0
    assert counts[-1] == 0


@pytest.mark.parametrize("seed", SEEDS)
def test_cold_pools_fill_from_nothing_and_stay(seed: int) -> None:
    seen = shown("pool-warm-up", seed)
    assert seen.used[0] <= 0.5 * max(seen.used)
    assert seen.used[-1] >= 0.4 * max(seen.used)


@pytest.mark.parametrize("row", ["traffic-step", "traffic-ramp"])
@pytest.mark.parametrize("seed", SEEDS)
def test_traffic_doubles_at_the_onset(row: str, seed: int) -> None:
    seen = shown(row, seed)
    facts = seen.play.facts
    onset, end = facts["onset_seconds"], facts["onset_seconds"] + facts.get("ramp_seconds", 0.0)
    starts = [
        t
        for rows in seen.sessions(lambda one: one.client_addr in facts["hosts"]).values()
        for t, row in rows
        if row.query
    ]
    before = sum(100 <= t < onset for t in starts) / (onset - 100)
    after = sum(t >= end for t in starts) / (seen.looks[-1] - end)
    assert after > 1.2 * before


@pytest.mark.parametrize("row", ["autoscaling", "autoscaling-one-address"])
@pytest.mark.parametrize("seed", SEEDS)
def test_more_pods_come_and_stay(row: str, seed: int) -> None:
    seen = shown(row, seed)
    facts = seen.play.facts
    counts = seen.counts(lambda one: one.client_addr in facts["hosts"])
    before = counts[int(facts["onset_seconds"]) - 5]
    assert counts[-1] >= before + 0.8 * facts["pods_more"]
    addresses = {
        rows[-1][1].client_addr for rows in seen.sessions(lambda one: one.client_addr in facts["hosts"]).values()
    }
    assert (len(addresses) == 1) == (row == "autoscaling-one-address")


@pytest.mark.parametrize("seed", SEEDS)
def test_night_is_idle_and_the_morning_is_not(seed: int) -> None:
    seen = shown("quiet-night", seed)
    facts = seen.play.facts
    dark = facts["evening_seconds"] + facts["ramp_seconds"] + 600
    dawn = seen.play.seconds - 600 - facts["ramp_seconds"]
    day = seen.sessions(lambda one: one.client_addr in facts["hosts"])
    used = [
        t
        for rows in day.values()
        for t, row in rows
        if row.query_start is not None and t - 2 < row.query_start - seen.first_at
    ]
    assert not [t for t in used if dark < t < dawn]
    assert [t for t in used if t > dawn]


@pytest.mark.parametrize("seed", SEEDS)
def test_dump_has_a_leader_in_its_transaction_and_eight_workers_that_copy(seed: int) -> None:
    seen = shown("pg-dump", seed)
    dump = seen.sessions(lambda row: row.application_name == "pg_dump")
    leaders = [rows for rows in dump.values() if any("pg_export_snapshot" in (row.query or "") for _, row in rows)]
    assert len(dump) == 9
    assert len(leaders) == 1
    assert leaders[0][-1][1].state == "idle in transaction"
    assert all(row.backend_xmin for _, row in leaders[0])
    copying = [rows for rows in dump.values() if any((row.query or "").startswith("COPY") for _, row in rows)]
    assert len(copying) == 8
    assert len({rows[-1][1].xact_start for rows in copying}) == 8
    for rows in copying:
        assert len({row.xact_start for _, row in rows if row.xact_start}) == 1
    assert seen.counts(lambda row: row.application_name == "pg_dump")[-1] == 0


@pytest.mark.parametrize("seed", SEEDS)
def test_one_analytics_query_runs_for_long(seed: int) -> None:
    seen = shown("analytics-query", seed)
    long = [
        seen.last_seen[key] - t
        for key, rows in seen.sessions(lambda row: "GROUP BY customer_id" in (row.query or "")).items()
        for t, row in rows
        if row.state == "active" and row.is_client and "customer_id" in (row.query or "")
    ]
    assert len(long) == 1
    assert long[0] > 700


@pytest.mark.parametrize("row", ["analysts-idle", "analysts-arriving"])
@pytest.mark.parametrize("seed", SEEDS)
def test_tools_of_analysts_are_parked(row: str, seed: int) -> None:
    seen = shown(row, seed)
    people = seen.sessions(lambda one: (one.usename or "").startswith("analyst"))
    assert len(people) >= 0.3 * seen.play.facts["sessions"]
    rests = [
        later - t for rows in people.values() for (t, one), (later, _) in pairwise(rows) if one.state == "idle"
    ] + [seen.looks[-1] - rows[-1][0] for key, rows in people.items() if seen.last_seen[key] == seen.looks[-1]]
    assert max(rests) > 900


@pytest.mark.parametrize("seed", SEEDS)
def test_maintenance_takes_no_slots_but_its_own_and_waits_shortly(seed: int) -> None:
    seen = shown("maintenance", seed)
    assert seen.play.world.processes["autovacuum worker"] > 1
    assert seen.play.world.processes["walsender"] >= seen.play.facts["standbys"]
    assert all(one.is_client for rows in seen.rows.values() for _, one in rows), "who reads the server passes them over"
    waits = _lock_waits(seen)
    assert waits
    assert all(seconds <= 6 for seconds, _ in waits)


@pytest.mark.parametrize("seed", SEEDS)
def test_waits_for_locks_last_some_four_seconds_and_few_wait(seed: int) -> None:
    seen = shown("short-lock-waits", seed)
    waits = _lock_waits(seen)
    assert len(waits) >= 3
    assert max(seconds for seconds, _ in waits) >= 2
    assert all(seconds <= 6 for seconds, _ in waits)
    assert all(row.blocked_by for _, row in waits)


def _lock_waits(seen: Shown) -> list[tuple[float, Session]]:
    """Return each session's waits for a lock: how long from its first look to the first without, and a row of it."""
    waits = []
    for key, rows in seen.rows.items():
        since: tuple[float, Session] | None = None
        for t, row in [*rows, (seen.last_seen[key] + 1, None)]:
            waiting = row is not None and row.wait_event_type == "Lock"
            if waiting and since is None:
                since = (t, row)
            elif not waiting and since is not None:
                waits.append((t - since[0], since[1]))
                since = None
    return waits


@pytest.mark.parametrize("seed", SEEDS)
def test_application_that_never_pools_opens_twenty_to_sixty_sessions_a_second(seed: int) -> None:
    seen = shown("no-pool-steady", seed)
    rate = (seen.established[-1] - seen.established[0]) / (len(seen.established) - 1)
    assert 18 <= rate <= 70
    # Most of them are too short for a look a second.
    assert len(seen.rows) < 0.5 * (seen.established[-1] - seen.established[0])


@pytest.mark.parametrize("seed", SEEDS)
def test_recycling_opens_as_many_as_it_closes(seed: int) -> None:
    seen = shown("pool-recycling", seed)
    facts = seen.play.facts
    counts = seen.counts(lambda one: one.client_addr in facts["hosts"])
    size = facts["pods"] * facts["pool_least"]
    assert min(counts) >= 0.8 * size
    assert max(counts) <= size + 5 * facts["pods"]
    members = seen.sessions(lambda one: one.client_addr in facts["hosts"])
    if facts["lifetime_seconds"] <= 600:
        assert len(members) >= 1.5 * size


@pytest.mark.parametrize("seed", SEEDS)
def test_first_ever_batch_starts_bit_by_bit_and_is_one_statement(seed: int) -> None:
    seen = shown("staggered-batch", seed)
    facts = seen.play.facts
    batch = seen.sessions(lambda row: row.query == BACKFILL_QUERY)
    assert len(batch) == facts["sessions"]
    firsts = sorted(rows[0][0] for rows in batch.values())
    assert firsts[0] >= facts["onset_seconds"] - 1
    assert firsts[-1] - firsts[0] >= 0.5 * facts["gap_seconds"] * (facts["sessions"] - 1)
    assert seen.counts(lambda row: row.query == BACKFILL_QUERY)[-1] == 0


@pytest.mark.parametrize("seed", range(4))
def test_restart_fails_the_looks_ends_every_session_and_everybody_comes_back(seed: int) -> None:
    seen = shown("server-restart", seed)
    facts = seen.play.facts
    reasons = {reason for _, reason in seen.failures}
    assert reasons <= {"refused", "not_accepting"}
    assert seen.failures[0][0] == pytest.approx(facts["onset_seconds"], abs=1.5)
    assert len(seen.failures) == pytest.approx(facts["down_seconds"], abs=1.5)
    survivors = [
        rows for rows in seen.rows.values() if rows[0][0] < facts["onset_seconds"] and rows[-1][0] > facts["up_seconds"]
    ]
    assert not survivors
    before = seen.used[int(facts["onset_seconds"]) - 10]
    assert seen.used[-1] >= 0.7 * before
    # A storm, and its end: most of those who came back did so in the first half minute.
    came = sorted(rows[0][0] for rows in seen.rows.values() if rows[0][0] >= facts["up_seconds"] - 1)
    early = sum(t < facts["up_seconds"] + 45 for t in came)
    assert early > 0.3 * len(came)


@pytest.mark.parametrize("seed", range(len(RESTARTED_IN)))
def test_own_restart_falls_into_the_middle_of_each_of_the_others(seed: int) -> None:
    play = BUILDERS["own-restart"](seed, True)
    assert play.facts["in_the_middle_of"] == RESTARTED_IN[seed]
    offset = play.world.elapsed
    assert play.starts[0] == 0.0
    assert len(play.starts) > 1
    assert all(later - earlier >= 20 for earlier, later in pairwise(play.starts))
    assert all(offset + 20 <= start <= offset + play.seconds - 10 for start in play.starts[1:])
