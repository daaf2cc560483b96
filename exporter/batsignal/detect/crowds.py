"""All that runs of one statement: of one service, or of several that run it in the same database at the same time.

A plan that turned bad, or a table that is gone through from end to end, hurts whoever runs the statement, and behind a
pooler all of them in the same sessions. That is one incident, and is counted as one. Owns who belongs together and the
facts of such a crowd; what is too much of it is `pileups`' judgement. It has no clock and remembers nothing.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from batsignal.detect.statements import Execution, ExecutionKey, Statement, StatementKey
from batsignal.snapshot import Session

# A second service is part of it from this share of the first one's sessions on: a stray one says nothing of the cause.
PART_RATIO = 1 / 3
PART_SESSIONS = 2
# The onset: a gap this many times the usual one, and no shorter than that, is before it.
GAP_FACTOR = 6.0
GAP_LEAST_SECONDS = 5.0

GroupKey = tuple[str, ...]
AtWork = Callable[[GroupKey, float], bool]
"""Whether a service was at work before an instant."""


@dataclass(frozen=True, slots=True)
class Crowd:
    """One statement of one or more services, the largest first; it reads as one statement does."""

    members: tuple[Statement, ...]
    running: Mapping[ExecutionKey, Execution]
    long: Sequence[Execution]
    """Those that run for long, the oldest first."""

    @property
    def key(self) -> StatementKey:
        """Its first service's."""
        return self.members[0].key

    @property
    def groups(self) -> tuple[GroupKey, ...]:
        return tuple(one.key[0] for one in self.members)

    @property
    def at_start(self) -> int:
        return sum(one.at_start for one in self.members)

    @property
    def sessions(self) -> list[Session]:
        return [one.session for one in self.long]

    def usual(self, before: float) -> int:
        """Return how many long ones there were at once at the most, before an instant; in all, each at its busiest."""
        return sum(one.usual(before) for one in self.members)

    def count_before(self, instant: float) -> int:
        """Return how many long ones there were at the last look before an instant."""
        return sum(one.count_before(instant) for one in self.members)

    def ended_since(self, since: float) -> int:
        """Return how many began since an instant, became long, and are over."""
        return sum(one.ended_since(since) for one in self.members)

    def ended_before(self, instant: float) -> int:
        """Return how many began before an instant, became long, and are over."""
        return self.ended_since(-math.inf) - self.ended_since(instant)

    def quick_since(self, since: float) -> int:
        """Return how many began since an instant and were seen to be over quickly, of the ids that run for long."""
        ids = {one.session.query_id for one in self.long}
        return sum(one.quick_since(since, ids) for one in self.members)

    @property
    def statement_id(self) -> str | None:
        """The id that all of its executions have; those that are being planned have none yet, and do not count."""
        ids = Counter(one.session.query_id for one in self.long if one.session.query_id is not None)
        if len(ids) == 1:
            return next(iter(ids))
        return None if ids else self.long[0].session.statement_id if self.long else None

    @property
    def whole_pool_ratio(self) -> float:
        """The share that runs the statement, of all sessions of the origins in which it runs: usually of pools."""
        origins = {id(one.track.origin): one.track.origin for one in self.running.values()}
        held = sum(len(origin.tracks) for origin in origins.values())
        return len(self.running) / held if held else 0.0


def crowds(moved: Iterable[Statement], told: Mapping[StatementKey, StatementKey], at_work: AtWork) -> Iterable[Crowd]:
    """Yield what runs of each statement; of those services that run one together, as one crowd.

    `told` gives of what was told as one before the key of the first: it stays together. Only services that were at
    work before join: a batch brings its statement with it, and many names of batches are not one service.
    """
    by_name: dict[str, list[Statement]] = defaultdict(list)
    for statement in moved:
        by_name[statement.key[1]].append(statement)
    for statements in by_name.values():
        families: dict[StatementKey, list[Statement]] = {}
        left = sorted(statements, key=lambda one: (one.key not in told, -len(one.long), one.key))
        for one in left:
            if one.key in told:
                families.setdefault(told[one.key], []).append(one)
                continue
            family = next((others for others in families.values() if _is_part(one, others[0], at_work)), None)
            if family is None:
                families[one.key] = [one]
            else:
                family.append(one)
        yield from map(_crowd, families.values())


def _is_part(one: Statement, first: Statement, at_work: AtWork) -> bool:
    """Whether one service's executions are of the same crowd as another's."""
    if len(one.long) < max(PART_SESSIONS, PART_RATIO * len(first.long)) or not first.long:
        return False
    ours, theirs = _databases(one), _databases(first)
    if not (ours & theirs or None in ours | theirs):
        return False
    return all(at_work(each.key[0], train_of(each.long)[0].start) for each in (one, first))


def _databases(statement: Statement) -> set[str | None]:
    return {one.track.origin.key.database for one in statement.long}


def _crowd(members: Sequence[Statement]) -> Crowd:
    if len(members) == 1:
        return Crowd(tuple(members), members[0].running, members[0].long)
    running = {key: execution for one in members for key, execution in one.running.items()}
    return Crowd(
        tuple(members), running, sorted((one for each in members for one in each.long), key=lambda one: one.start)
    )


def train_of(long: Sequence[Execution]) -> list[Execution]:
    """Return those that came one after the other up to the newest: what ran for long before is not of the pile."""
    gaps = [later.start - earlier.start for earlier, later in pairwise(long)]
    longest = max(GAP_FACTOR * median(gaps), GAP_LEAST_SECONDS) if gaps else GAP_LEAST_SECONDS
    begin = next((index + 1 for index in range(len(gaps) - 1, -1, -1) if gaps[index] > longest), 0)
    return list(long[begin:])
