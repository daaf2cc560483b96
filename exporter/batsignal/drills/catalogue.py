"""Every incident that must be named and every piece of everyday life that must be left alone, one row each.

Owns the table and its names. How a row is made to happen stands elsewhere, once for real (beside this module) and once
as a model (the tests' simulator); a test holds both against this table.
"""

from collections.abc import Mapping

from batsignal.detect.signal import Kind
from batsignal.drills.truth import Group, Row


def _incident(name: str, *kinds: Kind, story: str) -> Row:
    return Row(name=name, group="incident", kinds=kinds, story=story)


def _everyday(name: str, story: str, *, may_warn: bool = False, group: Group = "everyday") -> Row:
    return Row(name=name, group=group, most="warning" if may_warn else None, story=story)


_ROWS = (
    _incident("leak", "leak", story="a deploy that loses a session every 2 s"),
    _incident("leak-slow", "leak", story="a deploy that loses a session every 45 s"),
    _incident("leak-crawl", "leak", story="a session lost every 4 min, for hours, while traffic goes up and down"),
    _incident("leak-in-transaction", "leak", story="lost sessions that stay idle in transaction"),
    _incident("leak-client-read", "leak", story="lost sessions that stay active, waiting for their client"),
    _incident("leak-unnamed", "leak", story="a leak of an application without application_name"),
    _incident("leak-many-pods", "leak", story="a leak spread over many pods, a little each"),
    _incident(
        "pool-starvation", "pool_starvation", story="a leak inside a bounded pool: the server has slots to spare"
    ),
    _incident(
        "pgbouncer-starvation", "pool_starvation", story="PgBouncer's clients wait, its server sessions are taken"
    ),
    _incident("query-pileup", "query_pileup", story="a new statement of a deploy that takes far too long"),
    _incident("query-pileup-old", "query_pileup", story="an old statement whose plan turns bad"),
    _incident("lock-pileup", "lock_pileup", story="a queue behind DDL that waits for a lock"),
    _incident("lock-pileup-transaction", "lock_pileup", story="a queue behind a forgotten transaction"),
    _incident("storm", "storm", story="an application that stops pooling: a session for each request"),
    _incident("storm-refused", "storm", story="clients that try again and again while the server refuses them"),
    _incident("storm-reconnect", "storm", story="every client reconnecting at once, again and again, after a restart"),
    _incident("idle-in-transaction", "idle_in_transaction", story="a transaction left open for minutes, holding locks"),
    _incident("saturation", "saturation", story="many services that all grow honestly until the slots are taken"),
    _incident("saturation-role", "saturation", story="a role that reaches its own connection limit"),
    _incident("saturation-database", "saturation", story="a database that reaches its own connection limit"),
    _incident("leak-during-batch", "leak", story="a leak while a batch runs"),
    _incident("pileup-behind-storm", "storm", "query_pileup", story="a pile-up behind a storm"),
    _incident("endpoint-down", "endpoint_down", story="a health endpoint that fails while the database is fine"),
    _incident("endpoint-slow", "endpoint_slow", story="a health endpoint that becomes slow against its own past"),
    _incident("database-unreachable", "database_unreachable", story="the server goes away and stays away"),
    _everyday("cron-batch", "a batch of 30 sessions every 10 min"),
    _everyday("rolling-deploy", "a rolling deploy that doubles the pools for two minutes"),
    _everyday("blue-green", "a blue/green deploy whose old side stays idle for an hour"),
    _everyday("pool-warm-up", "cold pools that fill to their minimum"),
    _everyday("traffic-step", "traffic that doubles at once"),
    _everyday("traffic-ramp", "traffic that doubles bit by bit"),
    _everyday("autoscaling", "more pods that come and stay"),
    _everyday("quiet-night", "a night without traffic, every session idle for hours"),
    _everyday("pg-dump", "a pg_dump with 8 jobs for 40 min"),
    _everyday("analytics-query", "one analytics query of 20 min"),
    _everyday("analysts-idle", "analysts' tools, parked idle all day"),
    _everyday("maintenance", "autovacuum, walsenders and CREATE INDEX CONCURRENTLY"),
    _everyday("short-lock-waits", "waits of 4 s for a lock"),
    _everyday("no-pool-steady", "an application that never pools, but is steady"),
    _everyday("pool-recycling", "a pool that recycles its sessions by max lifetime"),
    _everyday("server-restart", "a restart of the server, and a storm of reconnects that ends", may_warn=True),
    _everyday("own-restart", "our own restart in the middle of everyday life"),
    _everyday(
        "autoscaling-one-address",
        "autoscaling behind one address, as a leak would do",
        may_warn=True,
        group="hard pair",
    ),
    _everyday("analysts-arriving", "analysts who open one session after the other", may_warn=True, group="hard pair"),
    _everyday(
        "staggered-batch", "a first-ever batch of one statement, started bit by bit", may_warn=True, group="hard pair"
    ),
)

ROWS: Mapping[str, Row] = {row.name: row for row in _ROWS}
