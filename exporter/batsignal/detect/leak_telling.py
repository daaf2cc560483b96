"""What is said of a leak that is lit: how fast it goes on, how long is left, whom it wakes, and the words for it.

Owns the severity and the texts. Whether it is a leak, since when and until when is asked elsewhere (`leaks`). It has no
memory and no clock.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

from batsignal.config import Thresholds
from batsignal.detect import come_back, headroom, wording
from batsignal.detect import lost as losses
from batsignal.detect.limits import Limit, limits_of
from batsignal.detect.signal import Finding, Severity, Subject
from batsignal.detect.steps import Steps
from batsignal.detect.tracks import Group
from batsignal.detect.train import Train, is_nearly_all
from batsignal.detect.window import Window

# One that was critical is so until nothing has come for so long: a page that comes and goes wakes twice.
PAUSE_SECONDS = 120.0
PAUSE_FACTOR = 2.0
# Beside sessions that came back, so many times as many more are asked for to wake somebody as to warn.
CAME_BACK_FACTOR = 2
# What had been lent for long before it was lost is most of it.
LENT_RATIO = 0.5


def told(group: Group, train: Train, window: Window, numbers: Thresholds, *, since: float, was: Severity) -> Finding:
    """Return what is said of a group's leak at this look; `since` is its onset, `was` its severity so far."""
    limits = _eaten_into(train, window)
    nearest = min(limits, key=lambda one: one.room, default=None)
    room = math.inf if nearest is None else nearest.room
    # Younger ones cannot be told yet from sessions that will be used again.
    until = window.t - losses.telling_seconds(train.tracks[-1], numbers)
    pace = train.pace(0 if nearest is None else nearest.room)
    rate = pace.rate(until)
    exhaustion = _seconds_left(room, rate)
    subject = replace(train.subject, limit=None if nearest is None or nearest.owner is None else nearest.name)
    return Finding(
        kind="leak",
        key=group.key,
        severity=_severity(train, limits, _waking_seconds_left(room, pace, until), numbers, was=was),
        subject=subject,
        since=since,
        sessions=train.held,
        exhaustion_seconds=exhaustion,
        evidence=(
            (
                f"{wording.sessions(len(train.tracks) + len(train.firsts))} opened since {wording.clock_time(since)},"
                f" each used once and never again; {train.returned} given back"
            ),
            *train.where,
        ),
        summary=(
            f"{wording.culprit(subject)} leaks connections: {train.held} held" + _going_on(rate, exhaustion, nearest)
        ),
        undo=_undo(subject),
        versions=train.versions,
    )


def told_again(before: Finding, sessions: int, window: Window, *, gap_seconds: float = math.inf) -> Finding:
    """Return what is said of a leak whose sessions were ended, and whose culprit has taken so many since.

    `gap_seconds` is how often it takes one, if it goes on as it did; infinite where it took them all at once.
    """
    slots = headroom.usable(window)
    room = math.inf if slots is None else max(slots - window.used, 0)
    exhaustion = room * gap_seconds if sessions and room else 0.0 if not room else math.inf
    if sessions:
        again = f"{wording.sessions(sessions)} again right after those that were lost had been ended"
        now = f"{sessions} held again{headroom.left(window, exhaustion)}"
    else:
        again = "those that were lost have been ended"
        now = "whether it goes on is not seen yet"
    return replace(
        before,
        sessions=sessions,
        exhaustion_seconds=exhaustion,
        evidence=(again, *before.evidence[1:]),
        summary=f"{wording.culprit(before.subject)} leaks connections: its sessions were ended; {now}",
    )


def _severity(
    train: Train, limits: Sequence[Limit], exhaustion: float, numbers: Thresholds, *, was: Severity
) -> Severity:
    """Return whom it wakes: by the time that is left, or once what it eats into would wake somebody by itself."""
    was_critical = was == "critical"
    slack = numbers.saturation_clear_ratio if was_critical else 0.0
    within = numbers.leak_critical_exhaustion_seconds * (2 if was_critical else 1)
    fullest = max(limits, key=lambda one: one.ratio, default=None)
    ratio = 0.0 if fullest is None else fullest.ratio
    # Without what it holds, nobody would have to hear of that limit.
    is_why = fullest is not None and fullest.used - train.held < numbers.saturation_warning_ratio * fullest.usable
    if ratio >= numbers.saturation_critical_ratio - slack and is_why:
        return "critical"
    may_wake = was_critical or _is_clear(train, numbers) or ratio >= numbers.saturation_warning_ratio
    return "critical" if exhaustion <= within and may_wake else "warning"


def _is_clear(train: Train, numbers: Thresholds) -> bool:
    """Whether it may wake somebody while there is room: what looks alike may yet turn out to be pools that start.

    What comes in clumps, beside much that is opened and used again, or rests after it had been lent for long, may be
    pods or workers behind one address; what comes beside some that came back may do so, too. Several pools behind one
    address give themselves away: what one of them opens passes over the idle ones of the others, and those come back.
    """
    if train.is_clumped:
        return False
    doubt = 1 if is_nearly_all(len(train.tracks), len(train.used) + train.used_before) else 2
    if train.lent > LENT_RATIO * len(train.tracks):
        doubt = 2
        if losses.longest_passed_seconds(train.tracks) >= numbers.leak_idle_seconds:
            return False
    return train.lost >= doubt * numbers.leak_sessions + CAME_BACK_FACTOR * come_back.doubt(train, numbers)


def _eaten_into(train: Train, window: Window) -> list[Limit]:
    """Return the limits that every session of a train counts against."""
    names = {"server", f"role:{train.subject.user}", f"database:{train.subject.database}"}
    return [limit for limit in limits_of(window) if limit.name in names]


def _seconds_left(room: float, rate: float) -> float:
    if room <= 0:
        return 0.0
    return room / rate if rate > 0 else math.inf


def _waking_seconds_left(room: float, pace: Steps, until: float) -> float:
    """Return the time left by which it wakes somebody: a leak that pauses for a moment need not wake him again."""
    silence = until - pace.times[-1]
    if silence > max(PAUSE_SECONDS, PAUSE_FACTOR * pace.silence_most_seconds):
        return _seconds_left(room, 0.0)
    return _seconds_left(room, pace.slowed_rate(until))


def _undo(subject: Subject) -> str:
    """Say what ends it when no deploy is known that brought it."""
    does_not = "it does not give its connections back."
    if subject.application is not None:
        return f"Restart or roll back {wording.culprit(subject)}: {does_not}"
    return f"Find the application of {wording.culprit(subject)} and restart it: {does_not}"


def _going_on(rate: float, exhaustion: float, nearest: Limit | None) -> str:
    """Say how fast it goes on and what is left until the nearest limit; None is a limit that nobody knows."""
    if nearest is not None and exhaustion <= 0:
        return f"; {_limit(nearest)} is reached" if nearest.owner is not None else "; no slot is left"
    if rate <= 0:
        return "; not growing now"
    so_far = f", +{wording.rate(rate)}; "
    if nearest is None:
        return f"{so_far}when the slots run out is not known"
    left = wording.duration(exhaustion)
    return so_far + (f"slots run out in {left}" if nearest.owner is None else f"{_limit(nearest)} is reached in {left}")


def _limit(limit: Limit) -> str:
    kind, _, name = limit.name.partition(":")
    return f"the limit of {kind} {name}"
