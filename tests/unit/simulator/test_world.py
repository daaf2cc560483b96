"""The simulated server: who gets a session, who waits for whom, and what a look shows of it."""

from collections import Counter

import pytest

from batsignal.snapshot import PollFailure, Slots, Snapshot
from simulator import PHASE_SECONDS, START, Behaviour, Refused, Seat, World

SMALL = Slots(max=10, superuser_reserved=3)


def last(world: World, seconds: float) -> Snapshot:
    return list(world.looks(seconds))[-1]


def test_the_last_slot_is_given_and_the_next_session_is_refused() -> None:
    world = World(slots=SMALL)
    seats = [world.open("web") for _ in range(6)]
    assert all(seats), "one of the seven usable slots is ours"
    assert world.open("web") is None
    with pytest.raises(Refused) as refused:
        world.connect("web")
    assert refused.value.reason == "slots_full"
    assert last(world, 1).used == 7


def test_a_superuser_gets_the_reserved_slots_and_no_more() -> None:
    world = World(slots=SMALL)
    for _ in range(6):
        world.connect("web")
    for _ in range(3):
        world.connect("psql", user="postgres", superuser=True)
    with pytest.raises(Refused):
        world.connect("psql", user="postgres", superuser=True)


def test_a_closed_session_gives_its_slot_back_once() -> None:
    world = World(slots=SMALL)
    seats = [world.connect("web") for _ in range(6)]
    world.close(seats[0])
    world.close(seats[0])
    assert world.open("web") is not None
    assert world.open("web") is None


def test_a_role_at_its_limit_is_refused_while_others_are_not() -> None:
    world = World(slots=SMALL)
    world.role_limits["batch"] = 2
    world.connect("job", user="batch")
    world.connect("job", user="batch")
    assert world.refusal(user="batch") == "role_limit"
    assert world.refusal(user="app") is None


def test_a_database_at_its_limit_is_refused_while_others_are_not() -> None:
    world = World(slots=SMALL)
    world.database_limits["ledger"] = 1
    world.connect("job", database="ledger")
    assert world.refusal(database="ledger") == "database_limit"
    assert world.refusal(database="shop") is None


def test_refusals_are_told_once_and_only_where_a_source_tells_them() -> None:
    world = World(slots=SMALL)
    world.tells_refusals = True
    for _ in range(9):
        world.open("web")
    looks = list(world.looks(2))
    assert [snapshot.refused for snapshot in looks] == [3, 0]
    assert world.refusals == Counter(slots_full=3)
    silent = World(slots=SMALL)
    silent.open("web")
    assert last(silent, 1).refused is None


def test_other_backends_take_no_slot_and_are_shown_where_somebody_waits_for_them() -> None:
    world = World(slots=SMALL)
    workers = [
        world.connect("", user=None, database="shop", client=None, rest=None, backend_type="autovacuum worker")
        for _ in range(20)
    ]
    client = world.connect("web")
    snapshot = last(world, 1)
    assert snapshot.used == 2
    assert [session.pid for session in snapshot.sessions] == [client.pid]
    world.locks.take("orders", workers[3])
    client.use(world.now, 60.0)
    world.locks.take("orders", client)
    snapshot = last(world, 1)
    assert snapshot.used == 2
    assert [session.pid for session in snapshot.sessions] == [workers[3].pid, client.pid]


def test_statements_told_of_ahead_are_shown_when_they_begin_and_not_before() -> None:
    world = World()
    seat = world.connect("web")
    world.call(1.0, lambda: [seat.use(world.now + 0.01, 2.0, query=f"SELECT {n}") for n in range(3)])
    looks = list(world.looks(10))
    assert [look.sessions[0].query for look in looks] == [None, *["SELECT 0"] * 2, *["SELECT 1"] * 2, *["SELECT 2"] * 5]
    assert [look.sessions[0].state for look in looks] == ["idle", *["active"] * 6, *["idle"] * 3]
    for look in looks:
        (row,) = look.sessions
        assert all(at is None or at <= look.t for at in (row.xact_start, row.query_start, row.state_change))


def test_who_waits_for_a_transaction_to_end_waits_for_its_virtual_id() -> None:
    world = World()
    writer, builder = world.connect("importer"), world.connect("psql")
    writer.transact(world.now, 0.01)
    world.locks.take("virtualxid:importer", writer)
    builder.use(world.now, 60.0)
    world.locks.take("virtualxid:importer", builder)
    row = next(session for session in last(world, 1).sessions if session.pid == builder.pid)
    assert (row.state, row.wait_event_type, row.wait_event, row.blocked_by) == (
        *("active", "Lock", "virtualxid"),
        (writer.pid,),
    )


def test_sessions_too_short_to_be_seen_are_counted() -> None:
    world = World()
    first = last(world, 1).counters.sessions

    def visit() -> Behaviour:
        for _ in range(50):
            seat = world.open("php")
            seat.use(world.now + 0.005, 0.003)
            yield 0.009
            world.close(seat)

    world.run(visit(), 1.0)
    snapshot = last(world, 2)
    assert not snapshot.sessions
    assert snapshot.counters.sessions - first == 50
    assert snapshot.counters.xact_commit == 50


def test_a_session_that_logs_in_holds_a_slot_but_is_in_no_row() -> None:
    world = World(slots=SMALL)
    world.call(1 - PHASE_SECONDS - 0.001, lambda: [world.open("web") for _ in range(6)])
    snapshot = next(iter(world.looks(1)))
    assert snapshot.sessions == ()
    assert world.is_full


def test_a_statement_is_active_for_exactly_its_time_and_idle_after_it() -> None:
    world = World()
    seat = world.connect("web")
    seat.use(START + 2.0, 3.0, query="SELECT ?", wait=("IO", "DataFileRead"))
    rows = [snapshot.sessions[0] for snapshot in world.looks(6)]
    assert [row.state for row in rows] == ["idle", "idle", "active", "active", "active", "idle"]
    busy, after = rows[3], rows[-1]
    assert (busy.query_start, busy.xact_start, busy.state_change) == (START + 2, START + 2, START + 2)
    assert (busy.wait_event_type, busy.wait_event) == ("IO", "DataFileRead")
    assert (after.query_start, after.xact_start, after.state_change) == (START + 2, None, START + 5)
    assert (after.wait_event, after.query) == ("ClientRead", "SELECT ?")


def test_a_transaction_keeps_its_start_until_it_ends() -> None:
    world = World()
    seat = world.connect("web")
    seat.transact(START + 1.0, 0.1)
    world.call(3.0, lambda: seat.transact(world.now, 0.1, query="UPDATE a SET b = ?"))
    world.call(5.0, lambda: seat.end(world.now))
    rows = [snapshot.sessions[0] for snapshot in world.looks(7)]
    assert [row.state for row in rows] == ["idle"] + ["idle in transaction"] * 4 + ["idle"] * 2
    assert {row.xact_start for row in rows[1:5]} == {START + 1}
    assert rows[4].query == "UPDATE a SET b = ?"
    assert (rows[5].xact_start, rows[5].query) == (None, "COMMIT")


def test_a_use_that_is_still_to_begin_leaves_the_row_as_it_was() -> None:
    world = World()
    seat = world.connect("web")
    seat.use(START + 0.1, 0.1, query="SELECT 1")
    world.call(0.9 - PHASE_SECONDS, lambda: seat.use(START + 1.5, 0.2, query="SELECT 2"))
    row = next(iter(world.looks(1))).sessions[0]
    assert (row.state, row.query) == ("idle", "SELECT 1")


def test_rows_that_did_not_change_are_the_same_objects() -> None:
    world = World()
    idle, busy = world.connect("web"), world.connect("web")
    idle.use(START + 0.01, 0.01)

    def work() -> Behaviour:
        while True:
            busy.use(world.now, 0.01)
            yield 1.0

    world.run(work())
    world.restart(50, 1)
    first, second = list(world.looks(3))[1:]
    assert first.sessions[0] is second.sessions[0]
    assert first.sessions[1] is not second.sessions[1]


# -- locks -------------------------------------------------------------------------------------------------------------


def queue_behind_ddl(world: World) -> tuple[Seat, Seat, list[Seat]]:
    reader, ddl = world.connect("report"), world.connect("migrate")
    reader.use(world.now + 0.01, float("inf"))
    world.locks.take("orders", reader, exclusive=False)
    world.run_locked(ddl, "orders", 1.0, query="ALTER TABLE orders ADD COLUMN note text")
    readers = [world.connect("web") for _ in range(3)]
    for seat in readers:
        world.run_locked(seat, "orders", 0.5, exclusive=False, query="SELECT * FROM orders")
    return reader, ddl, readers


def test_who_comes_after_ddl_that_waits_is_blocked_by_the_ddl_and_not_by_the_reader() -> None:
    world = World()
    reader, ddl, readers = queue_behind_ddl(world)
    rows = {row.pid: row for row in last(world, 2).sessions}
    assert rows[ddl.pid].blocked_by == (reader.pid,)
    assert {rows[seat.pid].blocked_by for seat in readers} == {(ddl.pid,)}
    assert rows[reader.pid].blocked_by == ()
    waiting = [rows[seat.pid] for seat in (ddl, *readers)]
    assert {(row.state, row.wait_event_type, row.wait_event) for row in waiting} == {("active", "Lock", "relation")}


def test_the_queue_moves_on_when_the_holder_goes() -> None:
    world = World()
    reader, ddl, readers = queue_behind_ddl(world)
    world.call(2.0, lambda: world.close(reader))
    looks = list(world.looks(5))
    rows = {row.pid: row for row in looks[2].sessions}
    assert (rows[ddl.pid].state, rows[ddl.pid].wait_event_type) == ("active", None), "it alters the table now"
    assert {rows[seat.pid].blocked_by for seat in readers} == {(ddl.pid,)}
    assert {row.state for row in looks[-1].sessions} == {"idle"}
    assert world.locks.waiting == 0


def test_only_the_first_who_waits_for_a_row_waits_for_its_holder() -> None:
    world = World()
    holder = world.connect("backoffice")
    holder.transact(world.now + 0.01, 0.01)
    world.locks.take("row:stock", holder)
    first, second, third = (world.connect("web") for _ in range(3))
    for seat in (first, second, third):
        world.run_locked(seat, "row:stock", 0.1)
    rows = {row.pid: row for row in last(world, 1).sessions}
    assert (rows[first.pid].blocked_by, rows[first.pid].wait_event) == ((holder.pid,), "transactionid")
    assert (rows[second.pid].blocked_by, rows[second.pid].wait_event) == ((first.pid,), "tuple")
    assert rows[third.pid].blocked_by == (first.pid, second.pid)


def test_who_gives_up_leaves_the_queue() -> None:
    world = World()
    holder, waiter = world.connect("a"), world.connect("b")
    world.locks.take("orders", holder)
    told = []
    world.run_locked(waiter, "orders", 0.1, timeout_seconds=2.0, then=told.append)
    looks = list(world.looks(4))
    assert [snapshot.sessions[1].state for snapshot in looks] == ["active", "active", "idle", "idle"]
    assert told == [False]
    assert world.locks.waiting == 0


# -- the rest of a look ------------------------------------------------------------------------------------------------


def test_after_a_restart_our_own_seat_is_taken_again_if_there_is_one() -> None:
    world = World(slots=SMALL)
    world.restart(2.0, 3.0)
    world.call(5.0, lambda: [world.open("web") for _ in range(20)])
    world.call(7.2, lambda: world.close(next(iter(world.seats.values()))))
    looks = list(world.looks(9))
    assert [snapshot.failure.reason if snapshot.failure else None for snapshot in looks] == (
        [None, None, "refused", "refused", "refused", "slots_full", "slots_full", None, None]
    )
    assert looks[-1].used == 7


def test_a_server_that_is_away_refuses_everybody() -> None:
    world = World()
    world.fail(0.0, 10.0, PollFailure(reason="not_accepting", text="starting up", sqlstate="57P03"))
    list(world.looks(1))
    assert world.open("web") is None
    assert world.refusals == Counter(not_accepting=1)


def test_an_announced_deploy_is_told_once_and_another_never() -> None:
    world = World()
    world.deploy("web", "2", 1.0, announced=True)
    world.deploy("mail", "3", 1.0)
    told = [[deploy.service for deploy in snapshot.deploys] for snapshot in world.looks(4)]
    assert told == [[], ["web"], [], []]
    assert [deploy.service for deploy in world.deploys] == ["web", "mail"]


def test_an_endpoint_is_up_while_its_pool_lends_and_down_when_all_is_lent() -> None:
    world = World()
    pool = world.pool("web@1", least=2, most=2)
    world.endpoint("web", "web", pool, interval_seconds=2.0, at=2.5)
    world.call(8.0, lambda: [pool.lose(0.01) for _ in range(2)])
    probes = [probe for snapshot in world.looks(20) for probe in snapshot.probes]
    assert [probe.up for probe in probes if probe.at < START + 8.0] == [True] * 3
    late = [probe for probe in probes if probe.at > START + 8.0]
    assert len(late) > 3
    assert all(not probe.up and probe.seconds == 2.0 for probe in late)


def test_an_endpoint_whose_pool_the_server_refuses_fails() -> None:
    world = World(slots=SMALL)
    pool = world.pool("web@1", least=0, most=5)
    for _ in range(6):
        world.connect("hog")
    world.endpoint("web", "web", pool, at=1.0)
    (probe,) = [probe for snapshot in world.looks(3) for probe in snapshot.probes]
    assert (probe.up, probe.status) == (False, 500)


def test_a_ping_grows_with_the_sessions_at_work() -> None:
    world = World()
    calm = last(world, 1).ping_seconds
    for _ in range(60):
        world.connect("web").use(world.now + 0.01, 100.0)
    assert last(world, 1).ping_seconds > 5 * calm


def test_a_meter_notes_the_first_time_a_limit_is_reached() -> None:
    world = World(slots=SMALL)
    near, full = world.meter("server", 0.8), world.meter("server", 1.0)

    def grow() -> Behaviour:
        while True:
            world.open("web")
            yield 1.0

    world.run(grow(), 1.0)
    list(world.looks(10))
    # Six of seven, ours among them, with the fifth session; all with the sixth.
    assert near.first_at == pytest.approx(START + 5.0)
    assert full.first_at == pytest.approx(START + 6.0)


def test_the_same_seed_gives_the_same_looks_and_another_does_not() -> None:
    def play(seed: int) -> list[Snapshot]:
        world = World(seed=seed)
        world.ping_spread = 0.2
        world.pool("web@1", work=20, least=3)
        world.visits("php", rate=5)
        world.leak("worker@2", every=2.0, at=5)
        return list(world.looks(60))

    assert play(7) == play(7)
    assert play(7) != play(8)


def test_pids_come_again_as_those_of_other_sessions_and_rows_stay_in_their_order() -> None:
    world = World()
    kept = world.connect("web")
    world.next_pid = 32_765
    last_ones = [world.connect("php") for _ in range(4)]
    assert [seat.pid for seat in last_ones] == [32_766, 32_767, kept.pid + 1, kept.pid + 2]
    assert [session.pid for session in last(world, 1).sessions] == sorted([kept.pid, *(one.pid for one in last_ones)])
