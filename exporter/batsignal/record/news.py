"""When what has changed of a lit signal is worth an event: each tick would drown them.

A fact that changed always is. Numbers move all the time: they are news when they have moved by much, and the longer a
signal has been lit the more seldom, so that what goes up and down for hours is told some dozens of times and not
thousands. A countdown that runs as it was told to is no news. Pure; there is no clock, time is an argument.
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
# That nothing runs out any more, or something does by now, is worth it sooner.
TURN_LIFE_RATIO = 0.1


def is_news(told: Finding, told_at: float, now: Finding, t: float, *, raised_at: float) -> bool:
    """Return whether a finding at `t` is worth an event after what was told at `told_at`; instants in Unix seconds."""
    if _facts(told) != _facts(now):
        return True
    quiet_seconds, life_seconds = t - told_at, t - raised_at
    if quiet_seconds < 0:
        return True  # the clock stepped back
    if quiet_seconds < NUMBERS_SECONDS:
        return False
    if _runs_out(told) != _runs_out(now) and quiet_seconds >= TURN_LIFE_RATIO * life_seconds:
        return True
    return quiet_seconds >= NUMBERS_LIFE_RATIO * life_seconds and (
        abs(now.sessions - told.sessions) > COUNT_STEP_RATIO * max(told.sessions, 1)
        or _has_moved(told.exhaustion_seconds - quiet_seconds, now.exhaustion_seconds)
    )


def _facts(finding: Finding) -> tuple[object, ...]:
    return finding.severity, finding.subject, finding.deploy, finding.since, finding.database_healthy


def _runs_out(finding: Finding) -> tuple[bool, bool]:
    """Say whether something runs out, and whether it has."""
    return math.isfinite(finding.exhaustion_seconds), finding.exhaustion_seconds <= 0


def _has_moved(told_seconds: float, now_seconds: float) -> bool:
    """Return whether the time left is so much more or less than what was told, less the time since."""
    if math.isinf(told_seconds) or math.isinf(now_seconds):
        return told_seconds != now_seconds
    told_seconds = max(told_seconds, 0.0)
    less, more = sorted((told_seconds, now_seconds))
    return more > LEFT_FACTOR * less + LEFT_SLACK_SECONDS
