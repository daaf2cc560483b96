"""Everyday life that somebody starts and that ends by itself: batches, a dump, a long query.

Owns those rows, the first-ever staggered batch among them. A job closes what it opened.
"""

from collections.abc import Callable
from typing import Any

from simulator.background import draw_service, set_background
from simulator.scenario import Play
from simulator.seats import Behaviour, Seat
from simulator.variation import Variation

EVERY_SECONDS = 600.0
BATCH_SESSIONS = 30
DUMP_JOBS = 8
DUMP_SECONDS = 2400.0
QUERY_SECONDS = 1200.0
BACKFILL_QUERY = "INSERT INTO totals SELECT day, sum(total) FROM orders WHERE day = ? GROUP BY day"
BATCH_QUERY = "CALL import_orders(?)"
# How a batch's sessions spend its time.
SHAPES = ("one statement", "many statements", "done early", "drains")


def _web(v: Variation, seconds: float) -> None:
    """Set an ordinary service at work, and the rest of the background."""
    service = draw_service(v, "web", rate=v.draw.uniform(1, 8))
    service.start(v)
    v.expect(service.sessions())
    set_background(v, seconds, services=(1, 5), requests=30_000)


def cron_batch(seed: int, quick: bool) -> Play:
    v = Variation("cron-batch", seed, quick=quick)
    first = v.amount("first_seconds", 60, 500)
    rounds = 2 if quick else v.number("rounds", 4, 6)
    seconds = first + EVERY_SECONDS * (rounds - 1) + 420
    sessions = v.number("sessions", BATCH_SESSIONS - 6, BATCH_SESSIONS + 6)
    opening = v.pick("opened_within_seconds", (0.3, 2.0, 6.0, 15.0, 25.0))
    lasts = v.amount("lasts_seconds", 20, 240)
    shape = v.pick("shape", SHAPES)
    jitter = v.pick("jitter_seconds", (0.0, 5.0, 60.0))
    hosts = v.hosts(v.pick("hosts", (1, 1, 3, sessions)))
    application, place = v.identity("nightly-import")
    v.facts["named"] = application
    place["query"] = BATCH_QUERY

    def worker(client: str) -> Behaviour:
        seat = v.knock(application, client=client, **place)
        if seat is None:
            return
        chance = v.world.chance
        ends = v.world.elapsed + lasts * (chance.uniform(0.5, 1.2) if shape == "drains" else 1.0)
        if shape == "done early":
            seat.use(v.world.now + 0.01, chance.uniform(0.5, 10))
        elif shape != "many statements":
            seat.use(v.world.now + 0.01, 0.99 * (ends - v.world.elapsed))
        while shape == "many statements" and v.world.elapsed < ends:
            busy = chance.expovariate(1 / 1.5)
            seat.use(v.world.now + 0.01, busy)
            yield busy + chance.expovariate(1 / 0.5)
        yield max(ends - v.world.elapsed, 0.01)
        v.world.close(seat)

    def batch() -> Behaviour:
        yield v.world.chance.uniform(0, jitter)
        for n in range(sessions):
            v.world.run(worker(hosts[n % len(hosts)]))
            yield opening / sessions * v.world.chance.uniform(0.5, 1.5)

    # The round before our first look may still be on when we begin; or there was none, and the first is news.
    for n in range(-1 if v.pick("known_before", (True, False)) else 0, rounds):
        at = v.at(first + EVERY_SECONDS * n)
        v.world.run(batch(), at)
    v.moments += [first + 5, first + lasts / 2, first + EVERY_SECONDS + opening / 2]
    v.expect(sessions)
    _web(v, seconds)
    return v.play(seconds)


def staggered_batch(seed: int, quick: bool) -> Play:
    v = Variation("staggered-batch", seed, quick=quick)
    onset = v.amount("onset_seconds", 320, 500)
    sessions = v.number("sessions", 16, 40)
    gap = v.amount("gap_seconds", 1.0, 10.0)
    lasts = v.amount("lasts_seconds", 120, 600)
    jitter = v.pick("jitter", (0.05, 0.3, 0.9))
    hosts = v.hosts(v.pick("hosts", (1, 1, 4)))
    application, place = v.identity("backfill")
    v.facts["named"] = application
    place["query"] = BACKFILL_QUERY
    seconds = onset + gap * sessions + 1.3 * lasts + v.length(600, 120)

    def worker(client: str) -> Behaviour:
        seat = v.knock(application, client=client, **place)
        if seat is None:
            return
        busy = lasts * v.world.chance.uniform(0.7, 1.3)
        seat.use(v.world.now + 0.01, busy)
        yield busy + v.world.chance.uniform(0.05, 2.0)
        v.world.close(seat)

    def batch() -> Behaviour:
        for n in range(sessions):
            v.world.run(worker(hosts[n % len(hosts)]))
            yield gap * v.world.chance.uniform(1 - jitter, 1 + jitter)

    v.world.run(batch(), v.at(onset))
    v.moments += [onset + gap * 4, onset + gap * sessions / 2, onset + gap * sessions + lasts / 2]
    v.expect(min(sessions, 1.1 * lasts / gap + 2))
    _web(v, seconds)
    return v.play(seconds)


def pg_dump(seed: int, quick: bool) -> Play:
    v = Variation("pg-dump", seed, quick=quick)
    onset = v.amount("onset_seconds", 60, 300)
    lasts = v.length(v.amount("lasts_seconds", 0.8 * DUMP_SECONDS, 1.3 * DUMP_SECONDS), 700)
    catalogue = v.amount("catalogue_seconds", 2, 40)
    connects = v.amount("workers_connect_seconds", 0.05, 4.0)
    # One table that is larger than all others: seven workers rest in their transactions until it is done.
    giant = v.pick("giant_table", (False, True))
    slow_client = v.pick("slow_client", (False, True))
    place = {"user": v.draw.choice(("postgres", "backup")), "database": "shop", "client": v.hosts(1)[0]}
    seconds = onset + lasts + v.length(400, 120)
    ends = v.at(onset + lasts)

    def worker(n: int) -> Behaviour:
        chance = v.world.chance
        seat = v.knock("pg_dump", **place, query="COPY public.orders (id, body) TO stdout", rest="idle in transaction")
        if seat is None:
            return
        begun = v.world.elapsed
        seat.backend_xmin = "74211"
        until = ends if n == 0 or not giant else begun + 0.4 * (ends - begun)
        while v.world.elapsed < until:
            left = until - v.world.elapsed
            busy = left if giant and n == 0 else min(chance.expovariate(1 / (lasts / 20)), left)
            copy = f"COPY public.table_{chance.randrange(60)} (id, body) TO stdout"
            seat.use(v.world.now + 0.01, busy, query=copy, wait=("Client", "ClientWrite") if slow_client else None)
            yield busy + chance.uniform(0.01, 0.4)
        yield max(ends - v.world.elapsed, 0.01)
        v.world.close(seat)

    def dump() -> Behaviour:
        # The leader reads the catalogue, then rests in its transaction: its snapshot is what the workers copy by.
        leader = v.knock("pg_dump", **place, query="SELECT pg_export_snapshot()", rest="idle in transaction")
        if leader is None:
            return
        leader.backend_xmin = "74211"
        leader.use(v.world.now + 0.01, catalogue)
        yield catalogue
        for n in range(DUMP_JOBS):
            v.world.run(worker(n))
            yield connects / DUMP_JOBS
        yield ends - v.world.elapsed + 0.2
        v.world.close(leader)

    v.world.run(dump(), v.at(onset))
    v.moments += [onset + 10, onset + lasts / 2, onset + 0.9 * lasts]
    v.expect(DUMP_JOBS + 1)
    _web(v, seconds)
    return v.play(seconds)


def analytics_query(seed: int, quick: bool) -> Play:
    v = Variation("analytics-query", seed, quick=quick)
    onset = v.amount("onset_seconds", 100, 400)
    lasts = v.length(v.amount("lasts_seconds", 0.8 * QUERY_SECONDS, 1.2 * QUERY_SECONDS), 800)
    seconds = onset + lasts + v.length(400, 120)
    helpers = v.number("parallel_workers", 0, 4)
    tool = v.pick("tool", ("Metabase v0.49.3", "DBeaver 23.1 - SQLEditor <q3.sql>", "psql", "Tableau", None))
    stays = v.pick("session_stays", (False, True))
    place = {"user": "analyst", "database": "shop", "client": v.hosts(1)[0]}
    query = "SELECT customer_id, sum(total) FROM orders JOIN items USING (order_id) GROUP BY customer_id"
    workers: list[Seat] = []

    def run() -> Behaviour:
        seat = v.knock(tool, **place, query=query)
        if seat is None:
            return
        before = v.world.chance.uniform(1, 20)
        seat.use(v.world.now + 0.01, 0.5, query="SELECT count(*) FROM orders")
        yield before
        seat.use(v.world.now + 0.01, lasts - before, query=query)
        for _ in range(helpers):
            helper = v.knock(tool, **place, query=query, backend_type="parallel worker", leader_pid=seat.pid)
            if helper is not None:
                workers.append(helper)
                helper.use(v.world.now + 0.01, lasts - before)
        yield lasts - before
        for helper in workers:
            v.world.close(helper)
        while stays:
            yield v.world.chance.uniform(600, 1200)
            seat.use(v.world.now, 1.0, query="SELECT count(*) FROM orders")
        v.world.close(seat)

    v.world.run(run(), v.at(onset))
    v.moments += [onset + 30, onset + lasts / 2]
    v.expect(2)
    _web(v, seconds)
    return v.play(seconds)


BUILDERS: dict[str, Callable[[int, bool], Any]] = {
    "cron-batch": cron_batch,
    "staggered-batch": staggered_batch,
    "pg-dump": pg_dump,
    "analytics-query": analytics_query,
}
