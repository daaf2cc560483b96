"""What is usual: how many sessions of moments each group opens at its busiest, and from which hosts it comes.

A batch every ten minutes, an application that never pools, a pool that overflows at noon: each is usual at its own
rate. So the busiest moment of each group is remembered, for days, and what a group does is held against that; a mean
would call every batch unusual. What is learnt is learnt half a minute late, so that a storm does not become usual
before somebody has called it one.

Owns the memory, bounded whatever names come by, and its JSON shape: it outlives a restart of the daemon. It judges
nothing, has no clock and does no I/O.
"""

import math
from collections import OrderedDict, deque
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from batsignal.detect.churn import BRIEF_LEAST, SPAN_SECONDS, Group
from batsignal.detect.memory import Memory
from batsignal.detect.window import Window

# A ramp may triple within minutes, not within this; a storm is called sooner.
LATE_SECONDS = 30.0
BUCKET_SECONDS = 10.0
# The busiest moment counts half after a day: yesterday's batch is usual today, last month's is not.
HALF_LIFE_SECONDS = 86_400.0
MEAN_SECONDS = 600.0
# A session alone is not worth remembering: a flood of names has one each.
WORTH_KEEPING = 2.0
GROUPS_MOST = 500
HOSTS_OF_MOST = 2000
HOSTS_MOST = 64
SERVER_HOSTS_MOST = 500

SERVER: Group = ("server",)
"""Everybody together."""


class Flow(Protocol):
    """What is learnt of one group at one look: its sessions of moments in the last `SPAN_SECONDS`."""

    group: Group
    came_and_went: float
    caught: int
    brief: int
    is_guess: bool


@dataclass(slots=True)
class _Habit:
    """How many sessions of moments a group had in `SPAN_SECONDS` at its busiest, and a second in the mean."""

    busiest: float
    mean_per_second: float
    at: float
    known_seconds: float = 0.0
    brief: float = 0.0
    """How many a look alone catches in `SPAN_SECONDS`, in the mean."""
    most_brief: float = 0.0
    """The same at its busiest."""

    def as_json(self) -> dict[str, float | None]:
        return asdict(self) | {"at": self.at if math.isfinite(self.at) else None}

    @classmethod
    def of(cls, memory: Memory) -> "_Habit":
        """Return what `as_json` gave; raises ValueError, TypeError or KeyError when it does not fit."""
        at = memory["at"]
        numbers = {name: _number(memory[name]) for name in cls.__dataclass_fields__ if name != "at"}
        return cls(**numbers, at=-math.inf if at is None else _number(at))

    def decay(self, t: float) -> float:
        """Return how much of its busiest moments still counts."""
        return float(0.5 ** (_passed(self.at, t) / HALF_LIFE_SECONDS))

    def learn(self, bucket: "_Bucket", group: Group) -> None:
        """Take in one bucket; there was nothing in the buckets that were left out."""
        t, busiest, brief = bucket.began, bucket.busiest[group], bucket.brief.get(group, 0)
        quiet_seconds = max(_passed(self.at, t) - BUCKET_SECONDS, 0.0) if self.known_seconds else 0.0
        self.busiest = max(busiest, self.busiest * self.decay(t))
        self.most_brief = max(bucket.most_brief.get(group, 0), self.most_brief * self.decay(t))
        faded = math.exp(-quiet_seconds / MEAN_SECONDS)
        self.mean_per_second *= faded
        self.brief *= faded
        self.known_seconds = min(self.known_seconds + quiet_seconds + BUCKET_SECONDS, MEAN_SECONDS)
        share = BUCKET_SECONDS / self.known_seconds
        self.mean_per_second += share * (bucket.came.get(group, busiest) / SPAN_SECONDS - self.mean_per_second)
        self.brief += share * (brief - self.brief)
        self.at = t


@dataclass(slots=True)
class _Bucket:
    began: float
    busiest: dict[Group, float] = field(default_factory=dict)
    came: dict[Group, float] = field(default_factory=dict)
    """At the bucket's last look; with their share of the unseen, whose errors cancel out in the mean."""
    brief: dict[Group, int] = field(default_factory=dict)
    most_brief: dict[Group, int] = field(default_factory=dict)


class Usual:
    """The habits of every group of one server."""

    def __init__(self) -> None:
        self._habits: OrderedDict[Group, _Habit] = OrderedDict()
        self._hosts: OrderedDict[Group, dict[str, float]] = OrderedDict()
        self._late: deque[_Bucket] = deque()
        self.watched_seconds = 0.0
        """For how long anybody has looked, over all lives of the daemon."""

    def forget_instants(self) -> None:
        """Let what is known be of long ago: the clock stepped back, or nobody looked for a while."""
        self._late.clear()
        for habit in self._habits.values():
            habit.at = -math.inf
        for hosts in self._hosts.values():
            for host in hosts:
                hosts[host] = -math.inf

    def busiest(self, group: Group, t: float) -> float:
        """Return how many sessions of moments it had in `SPAN_SECONDS` at its busiest; 0 when it never had any."""
        habit = self._habits.get(group)
        return 0.0 if habit is None else habit.busiest * habit.decay(t)

    def per_second(self, group: Group, t: float) -> float:
        """Return how many it has a second, in the mean of the last minutes."""
        habit = self._habits.get(group)
        return 0.0 if habit is None else float(habit.mean_per_second * math.exp(-_passed(habit.at, t) / MEAN_SECONDS))

    def brief(self, group: Group, t: float) -> float:
        """Return how many of them a look alone catches in `SPAN_SECONDS`, in the mean of the last minutes."""
        habit = self._habits.get(group)
        return 0.0 if habit is None else float(habit.brief * math.exp(-_passed(habit.at, t) / MEAN_SECONDS))

    def most_brief(self, group: Group, t: float) -> float:
        """Return how many a look alone caught in `SPAN_SECONDS` at its busiest."""
        habit = self._habits.get(group)
        return 0.0 if habit is None else habit.most_brief * habit.decay(t)

    def hosts_before(self, group: Group, t: float) -> Collection[str]:
        """Return the hosts from which the group had come before that instant."""
        return [host for host, first in self._hosts.get(group, {}).items() if first < t]

    def learn(self, window: Window, streams: Iterable[Flow], *, but: Collection[Group]) -> None:
        """Take in one look. Of groups in `but` nothing is learnt: they storm, and the server with them."""
        self.watched_seconds += window.looked_seconds or 0.0
        self._learn_hosts(window)
        t = window.t
        if not self._late or t - self._late[-1].began >= BUCKET_SECONDS:
            self._late.append(_Bucket(t))
        bucket = self._late[-1]
        busiest, came = bucket.busiest, bucket.came
        came.clear()
        for one in streams:
            group = one.group
            came[group], bucket.brief[group] = one.came_and_went, one.brief
            bucket.most_brief[group] = max(bucket.most_brief.get(group, 0), one.brief)
            sure = one.caught + (one.came_and_went - one.caught) * _surely(one)
            if sure > busiest.get(group, 0.0):
                busiest[group] = sure
        came[SERVER] = sum(came.values())
        busiest[SERVER] = max(busiest.get(SERVER, 0.0), came[SERVER])
        for bucket in self._late if but else ():
            for group in (*but, SERVER):
                bucket.busiest.pop(group, None)
        while t - self._late[0].began >= LATE_SECONDS + BUCKET_SECONDS:
            self._keep(self._late.popleft())

    def _keep(self, bucket: _Bucket) -> None:
        for group, came in bucket.busiest.items():
            habit = self._habits.get(group)
            if habit is None:
                if came < WORTH_KEEPING:
                    continue
                habit = self._habits[group] = _Habit(came, 0.0, bucket.began)
            habit.learn(bucket, group)
            self._habits.move_to_end(group)  # those that were busy last are kept longest
        while len(self._habits) > GROUPS_MOST:
            self._habits.popitem(last=False)

    def _learn_hosts(self, window: Window) -> None:
        for track in window.opened:
            key = track.origin.key
            if key.client is not None:
                first = track.opened_at if window.looked_seconds is None else window.t
                for group in (key.group, SERVER):
                    hosts = self._hosts.setdefault(group, {})
                    self._hosts.move_to_end(group)
                    if key.client not in hosts and len(hosts) < (SERVER_HOSTS_MOST if group == SERVER else HOSTS_MOST):
                        hosts[key.client] = first
        while len(self._hosts) > HOSTS_OF_MOST:
            self._hosts.popitem(last=False)

    # -- over a restart of the daemon ------------------------------------------------------------------------------

    def remembered(self) -> Memory:
        """Return all of it as JSON values."""
        return {
            "watched_seconds": self.watched_seconds,
            "habits": [{"group": list(group)} | habit.as_json() for group, habit in self._habits.items()],
            "hosts": [[list(group), list(hosts)] for group, hosts in list(self._hosts.items())[-GROUPS_MOST:]],
        }

    def recall(self, memory: Memory) -> None:
        """Take over what an earlier life remembered; raises ValueError, TypeError or KeyError when it does not fit."""
        watched_seconds = _number(memory["watched_seconds"])
        habits = {_group(one["group"]): _Habit.of(one) for one in memory["habits"][-GROUPS_MOST:]}
        hosts = {
            _group(group): {str(host): -math.inf for host in known[:SERVER_HOSTS_MOST]}
            for group, known in memory["hosts"][-HOSTS_OF_MOST:]
        }
        self.watched_seconds, self._habits, self._hosts = watched_seconds, OrderedDict(habits), OrderedDict(hosts)


def _surely(one: Flow) -> float:
    """Return how much of what was missed can be relied on: of whom hardly any was caught, it is chance."""
    if one.brief < BRIEF_LEAST:
        return 0.0
    # The number of glimpses has its square root as its standard deviation: a burst of four says nothing of a rate.
    return max(1.0 - 2.0 / math.sqrt(one.brief), 0.0) if one.is_guess else 1.0


def _passed(since: float, t: float) -> float:
    """Return how long ago that was; what was before the clock stepped back was a moment ago, for all anybody knows."""
    return max(t - since, 0.0) if math.isfinite(since) else 0.0


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise ValueError(f"no number of a baseline: {value!r}")
    return float(value)


def _group(value: Iterable[Any]) -> Group:
    parts = tuple(value)
    if not parts or isinstance(value, str | Mapping) or not all(isinstance(part, str) for part in parts):
        raise ValueError(f"no group of a baseline: {value!r}")
    return parts
