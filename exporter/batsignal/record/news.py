"""When what has changed of a lit signal is worth an event: each tick would drown them.

That it wakes somebody, since when, and after which deploy always is. Who it is and whether the database is well may go
to and fro with a session that comes and leaves, and numbers move all the time: they are told the more seldom
the longer a signal has been lit, numbers only when they have moved by much, so that what goes up and down for hours is
told some dozens of times and not thousands. A countdown that runs as it was told to is no news. Pure; there is no
clock, time is an argument.
"""

import math

from batsignal.detect.signal import Finding

# The count must have moved by this share, the time left by that factor from where a clock that runs down would be, and
# by more than a person would notice.
COUNT_STEP_RATIO = 0.25
LEFT_FACTOR = 1.25
LEFT_SLACK_SECONDS = 5.0
# Numbers are told again after so long at the least, and after so much of the time since the raise.
NUMBERS_SECONDS = 5.0
NUMBERS_LIFE_RATIO = 0.25
# What is more than a number is told again sooner: who it is, or that nothing runs out any more.
TURN_LIFE_RATIO = 0.1


def is_news(told: Finding, told_at: float, now: Finding, t: float, *, raised_at: float) -> bool:
    """Return whether a finding at `t` is worth an event after what was told at `told_at`; instants in Unix seconds."""
    if (told.severity, told.since, told.deploy) != (now.severity, now.since, now.deploy):
        return True
    quiet_seconds, life_seconds = t - told_at, t - raised_at
    if quiet_seconds < 0:
        return True  # the clock stepped back
    may_turn = quiet_seconds >= TURN_LIFE_RATIO * life_seconds
    if may_turn and (told.subject, told.database_healthy) != (now.subject, now.database_healthy):
        return True
    if quiet_seconds < NUMBERS_SECONDS:
        return False
    if may_turn and math.isfinite(told.exhaustion_seconds) != math.isfinite(now.exhaustion_seconds):
        return True
    return quiet_seconds >= NUMBERS_LIFE_RATIO * life_seconds and (
        abs(now.sessions - told.sessions) > COUNT_STEP_RATIO * max(told.sessions, 1)
        or _has_moved(told.exhaustion_seconds - quiet_seconds, now.exhaustion_seconds)
    )


def _has_moved(told_seconds: float, now_seconds: float) -> bool:
    """Return whether the time left is so much more or less than what was told, less the time since."""
    if math.isinf(told_seconds) or math.isinf(now_seconds):
        return told_seconds != now_seconds
    told_seconds = max(told_seconds, 0.0)
    less, more = sorted((told_seconds, now_seconds))
    return more > LEFT_FACTOR * less + LEFT_SLACK_SECONDS
