"""What a post-mortem should ask, by kind of incident: questions that the daemon cannot answer, and people can.

Owns the questions. Each aims at what would have kept the incident from happening, or made it shorter.
"""

from collections.abc import Mapping

FOR_ALL = (
    "Who noticed first, and how: the page, or a user?",
    "What did users see, for how long, and how many of them?",
    "What was tried that did not help, and how long did that take?",
    "What would have stopped this before production?",
)

BY_KIND: Mapping[str, tuple[str, ...]] = {
    "leak": (
        "Which code path takes a connection and does not give it back, on an error or a timeout above all?",
        "Why did no test count connections before and after? Could `batsignal deploy verify` have held the deploy?",
        "Has the pool a maximum, and does it end sessions that are out for too long?",
    ),
    "pool_starvation": (
        "Who held the pool's connections: a leak, a slow statement, or a call elsewhere with one in hand?",
        "How long does the pool let callers wait, and what do they do then?",
        "Is the pool's size the right one beside the number of its processes?",
    ),
    "query_pileup": (
        "Why did the statement become slow: a plan, a missing index, more data, a lock, a parameter?",
        "What limits how many of it run at once, and how long one may run (statement_timeout)?",
        "Was it new with a deploy, or the same as ever?",
    ),
    "lock_pileup": (
        "Why did the blocker hold its lock for so long, and was it meant to?",
        "Had the migration or job a lock_timeout, and does it try again in small steps?",
        "What do the waiting requests do when they cannot get the lock?",
    ),
    "storm": (
        "Why did clients open connections one by one: no pool, a pool that was emptied, retries without a back-off?",
        "What bounds how fast they reconnect after an outage (jitter, a pooler in front)?",
        "Were the clients the same hosts as ever?",
    ),
    "idle_in_transaction": (
        "Why was the transaction left open: a call to somebody else inside it, a lost client, a person in a shell?",
        "Would idle_in_transaction_session_timeout have ended it, and what may it be set to?",
        "Who waited for it, and what did vacuum not clean up meanwhile?",
    ),
    "saturation": (
        "Who took the slots, and was it growth, a peak, or more processes than the limit was made for?",
        "Do the pools' maxima of all services together fit below the limit?",
        "Which limit was it (the server's, a role's, a database's), and is it still the right one?",
    ),
    "endpoint_down": (
        "Was it the service, what it depends on, or the way to it?",
        "Did the health endpoint tell the truth: did users see what it said?",
    ),
    "endpoint_slow": (
        "What was slow: the service itself, its database, or something else that it asks?",
        "From when on did users notice?",
    ),
    "database_unreachable": (
        "What made it unreachable: a restart, a failover, the network, the host, its disk?",
        "How long did the applications take to come back after it was back, and why?",
        "Was anything lost that had been committed?",
    ),
}


def for_kind(kind: str) -> tuple[str, ...]:
    """Return what to ask after an incident of a kind, what is asked after every one last."""
    return (*BY_KIND.get(kind, ()), *FOR_ALL)
