"""The checklist after a deploy as it stands at a moment, and the verdict that it comes to.

Owns what a checklist is and when it has passed; what stands in it is `checks`'. Pure: what services did comes in as
values (`conduct`), and so does the time.
"""

from dataclasses import asdict, dataclass
from typing import Any

from batsignal.deploys.case import Case
from batsignal.deploys.checks import CHECKS, Check, Status
from batsignal.deploys.conduct import Conduct
from batsignal.snapshot import Deploy


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """The checklist of one deploy at one moment.

    `is_over` says that its window has passed, `was_seen` that something of the deploy was: a session, or a probe.
    """

    deploy: Deploy
    now: float
    window_seconds: float
    is_over: bool
    was_seen: bool
    checks: tuple[Check, ...]

    @property
    def verdict(self) -> Status:
        """Return bad when one line is, unknown when the server is not seen or nothing of the deploy was, else ok."""
        if any(check.status == "bad" for check in self.checks):
            return "bad"
        return "unknown" if self.checks[0].status == "unknown" or not self.was_seen else "ok"

    def as_json(self) -> dict[str, Any]:
        """Return what `GET /api/v1/deploys/verify` answers."""
        deploy = self.deploy
        return {
            "time": self.now,
            "deploy": {
                "service": deploy.service,
                "version": deploy.version,
                "at": deploy.at,
                "previous": deploy.previous,
            },
            "window_seconds": self.window_seconds,
            "over": self.is_over,
            "verdict": self.verdict,
            "checks": [asdict(check) for check in self.checks],
        }


def verify(deploy: Deploy, conduct: Conduct, *, now: float, window_seconds: float) -> Verification:
    """Return the checklist of a deploy as it stands at `now`."""
    is_over = now - deploy.at >= window_seconds
    with conduct.reading:
        sights = conduct.of(deploy.service)
        case = Case(deploy, conduct.pattern, tuple(sights), conduct.signals, is_over)
        checks = tuple(check(case) for check in CHECKS)
        was_seen = case.was_seen
    return Verification(
        deploy=deploy, now=now, window_seconds=window_seconds, is_over=is_over, was_seen=was_seen, checks=checks
    )
