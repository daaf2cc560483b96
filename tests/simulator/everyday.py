"""Everyday life that must wake nobody, and the hard pairs: one builder for each of their rows.

Owns the table of builders, and the row that goes through all the others: our own restart in their middle. The rows
themselves stand by their reason: `rollouts`, `traffic`, `jobs`, `people`, `maintenance`, `restarts`.
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import replace

from simulator import jobs, maintenance, people, restarts, rollouts, traffic
from simulator.scenario import Play

Builder = Callable[[int, bool], Play]

_ROWS: dict[str, Builder] = {
    **rollouts.BUILDERS,
    **traffic.BUILDERS,
    **jobs.BUILDERS,
    **people.BUILDERS,
    **maintenance.BUILDERS,
    **restarts.BUILDERS,
}

# In whose middle we are restarted. Not where a warning is allowed anyway: here none is.
RESTARTED_IN = (
    "cron-batch",
    "rolling-deploy",
    "blue-green",
    "pool-warm-up",
    "traffic-step",
    "traffic-ramp",
    "autoscaling",
    "quiet-night",
    "pg-dump",
    "analytics-query",
    "analysts-idle",
    "maintenance",
    "short-lock-waits",
    "no-pool-steady",
    "pool-recycling",
)
RESTARTS_MOST = 3
LEAST_SECONDS = 20.0
"""How long each daemon looks on, at the least, before the next takes its place."""


def own_restart(seed: int, quick: bool) -> Play:
    """One of the other rows, looked at by one daemon after the other; the restarts fall where it is hardest."""
    draw = random.Random(f"own-restart {seed}")  # noqa: S311 - chance that can be repeated
    row = RESTARTED_IN[seed % len(RESTARTED_IN)]
    play = _ROWS[row](1000 + seed, quick)
    offset = play.world.elapsed
    hardest = [moment for moment in play.facts["moments"] if LEAST_SECONDS < moment < play.seconds - LEAST_SECONDS]
    drawn = [draw.choice(hardest) + draw.uniform(-5, 15)] if hardest else []
    drawn += [draw.uniform(LEAST_SECONDS, 0.9 * play.seconds) for _ in range(draw.randint(1, RESTARTS_MOST - 1))]
    restarts_at = [0.0]
    for second in sorted(drawn):
        if second - restarts_at[-1] >= LEAST_SECONDS:
            restarts_at.append(round(second, 2))
    return replace(
        play,
        row="own-restart",
        seed=seed,
        facts=play.facts | {"in_the_middle_of": row, "restarts": restarts_at[1:]},
        starts=(0.0, *(offset + second for second in restarts_at[1:])),
    )


BUILDERS: Mapping[str, Builder] = {**_ROWS, "own-restart": own_restart}
