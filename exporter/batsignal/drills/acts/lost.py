"""Leaks: a new version takes sessions one after the other and never gives one back.

Owns every shape of it: by pace, by the state in which a session is lost, by who it says it is and from how many hosts.
A lost session is a real one, opened by a real driver, used once. It must not pretend a leak by anything else.
"""

import contextlib
import math
import os
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any

import psycopg2

from batsignal.detect.signal import DeployRef, Subject
from batsignal.drills.act import ActSpec, OnsetFacts, Pace, Tell
from batsignal.drills.actors.background import NEXT_VERSION, SERVICE, release, replace
from batsignal.drills.actors.service import Service
from batsignal.drills.ground import BudgetSpentError, DrillSession, Ground
from batsignal.errors import ConfigError

APPLICATION = f"{SERVICE}@{NEXT_VERSION}"
RETRY_SECONDS = 0.05
SPENT_RETRY_SECONDS = 0.5
UNNAMED_USER = "reports"
UNNAMED_HOST = 5
FIRST_POD_HOST = 10
POD_START_SECONDS = 0.4
# Half a wave of the crawl's traffic is a morning in short.
WAVE_SECONDS = 1200.0
WAVE_PER_SECOND = (3.0, 30.0)
WAVE_STEP_SECONDS = 5.0

Lose = Callable[[DrillSession], None]


def lose_idle(session: DrillSession) -> None:
    """Use the session once and forget it."""
    with session.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_class")
        cursor.fetchall()


def lose_in_transaction(session: DrillSession) -> None:
    """Forget it within the transaction that its first statement began."""
    session.autocommit = False
    lose_idle(session)


def lose_in_client_read(session: DrillSession) -> None:
    """Send half of an extended query and never its end: the server stays `active` and waits for its client.

    A COPY that is never fed looks the same, but so does one that is fed slowly. libpq cannot be made to stop half-way,
    so the messages (Parse, Flush) are written to its socket; that needs a session without TLS.
    """
    if session.info.ssl_in_use:
        raise ConfigError("--dsn: this drill needs a server that lets in sessions without TLS")
    statement = b"\0SELECT count(*) FROM pg_class\0" + struct.pack("!h", 0)
    os.write(session.fileno(), b"P" + struct.pack("!i", 4 + len(statement)) + statement + b"H" + struct.pack("!i", 4))


@dataclass(frozen=True, slots=True, kw_only=True)
class Who:
    """As whom sessions are lost, and where from."""

    application: str | None = APPLICATION
    user: str | None = None
    hosts: tuple[int, ...] = (1,)


class Leak:
    """Loses a session every `1 / rate_per_second` seconds by the clock, until `size` are lost; it keeps all of them.

    One that is refused is tried again at once, as by an application that must not lose a record.
    """

    def __init__(self, ground: Ground, tell: Tell, *, who: Who, lose: Lose = lose_idle) -> None:
        self._ground = ground
        self._tell = tell
        self._who = who
        self._lose = lose
        self._kept: list[DrillSession] = []
        self._said_spent = False

    def run(self, pace: Pace, onset: Callable[[DrillSession], OnsetFacts]) -> None:
        """Lose sessions in this thread; `onset` says what the first one begins."""
        rate = pace.rate_per_second or 1.0
        most = math.inf if pace.size is None else pace.size
        started = time.monotonic()
        for number in count():
            due_at = started + number / rate
            if number >= most:
                break
            if self._ground.stopped.wait(max(due_at - time.monotonic(), 0.0)):
                return
            session = self._take(number)
            if session is None:
                return
            if number == 0:
                self._tell.onset(onset(session))
            self._tell.lost()
        self._ground.stopped.wait()  # what is lost stays lost: it would be closed together with us

    def _take(self, number: int) -> DrillSession | None:
        """Open a session and lose it, however often that is refused; None when the drill has ended."""
        host = self._who.hosts[number % len(self._who.hosts)]
        extras: dict[str, Any] = (
            {"sslmode": "disable", "gssencmode": "disable"} if self._lose is lose_in_client_read else {}
        )
        while not self._ground.stopped.is_set():
            wait_seconds = RETRY_SECONDS
            try:
                session = self._ground.connect(self._who.application, user=self._who.user, host=host, **extras)
                self._kept.append(session)
                self._lose(session)
            except BudgetSpentError:
                wait_seconds = SPENT_RETRY_SECONDS
                self._say_spent()
            except psycopg2.OperationalError:
                pass  # refused, or the server is restarting: an application would try again
            else:
                return session
            self._ground.stopped.wait(wait_seconds)
        return None

    def _say_spent(self) -> None:
        if not self._said_spent and not self._ground.stopped.is_set():
            self._said_spent = True
            self._tell.note(f"the drill's share of the slots is taken ({self._ground.budget}): it takes no more")


def _begins(subject: Subject, deploy: DeployRef | None) -> Callable[[DrillSession], OnsetFacts]:
    return lambda _session: OnsetFacts(kind="leak", subject=subject, deploy=deploy)


def leak(ground: Ground, pace: Pace, tell: Tell, *, lose: Lose = lose_idle) -> None:
    """Release a version that loses sessions."""
    deploy = release(ground, tell)
    subject = Subject(application=SERVICE, version=NEXT_VERSION, user=ground.service_user)
    Leak(ground, tell, who=Who(), lose=lose).run(pace, _begins(subject, deploy))


def leak_crawl(ground: Ground, pace: Pace, tell: Tell) -> None:
    """Leak so slowly that traffic goes up and down many times meanwhile, and the pool with it."""
    service = Service(
        ground, SERVICE, NEXT_VERSION, minimum=2, maximum=12, order="lifo", idle_seconds=60.0, request_seconds=0.15
    )
    deploy = replace(ground, tell, service.start)
    period = min(WAVE_SECONDS, (pace.duration_seconds or WAVE_SECONDS) / 2)
    wave = partial(_make_waves, ground, service, period)
    ground.start_thread(wave, "drill traffic")
    subject = Subject(application=SERVICE, version=NEXT_VERSION, user=ground.service_user)
    Leak(ground, tell, who=Who()).run(pace, _begins(subject, deploy))


def _make_waves(ground: Ground, service: Service, period_seconds: float) -> None:
    low, high = WAVE_PER_SECOND
    began = time.monotonic()
    while not ground.stopped.wait(WAVE_STEP_SECONDS):
        phase = 2 * math.pi * (time.monotonic() - began) / period_seconds
        service.requests_per_second = low + (high - low) * (1 - math.cos(phase)) / 2


def leak_unnamed(ground: Ground, pace: Pace, tell: Tell) -> None:
    """Leak as an application that does not name itself, under a role of its own where one can be had."""
    user = ground.role(UNNAMED_USER) if ground.may_create_role else ground.service_user

    def onset(session: DrillSession) -> OnsetFacts:
        return OnsetFacts(kind="leak", subject=Subject(user=user, client=_client_of(ground, session)))

    Leak(ground, tell, who=Who(application=None, user=user, hosts=(UNNAMED_HOST,))).run(pace, onset)


def _client_of(ground: Ground, session: DrillSession) -> str | None:
    with contextlib.suppress(psycopg2.Error):
        rows = ground.execute(
            "SELECT host(client_addr) FROM pg_stat_activity WHERE pid = %s AND client_addr IS NOT NULL",
            (session.server_pid,),
        )
        return str(rows[0][0]) if rows else None
    return None


def leak_many_pods(ground: Ground, pace: Pace, tell: Tell) -> None:
    """Release a version on many pods, each of which loses a little. `size` is the number of pods."""
    pods = min(pace.size or 1, max(ground.room // 3, 1))
    hosts = tuple(range(FIRST_POD_HOST, FIRST_POD_HOST + pods))
    deploy = replace(ground, tell, partial(_start_pods, ground, hosts))
    subject = Subject(application=SERVICE, version=NEXT_VERSION, user=ground.service_user)
    paced = Pace(rate_per_second=pace.rate_per_second, duration_seconds=pace.duration_seconds)
    Leak(ground, tell, who=Who(hosts=hosts)).run(paced, _begins(subject, deploy))


def _start_pods(ground: Ground, hosts: Sequence[int]) -> None:
    for host in hosts:
        Service(ground, SERVICE, NEXT_VERSION, minimum=1, maximum=2, requests_per_second=2.0, host=host).start()
        if ground.stopped.wait(POD_START_SECONDS):
            return


ACTS: Mapping[str, ActSpec] = {
    "leak": ActSpec(run=leak, rate_per_second=0.5, duration_seconds=70.0),
    "leak-slow": ActSpec(run=leak, rate_per_second=1 / 45, duration_seconds=450.0),
    "leak-crawl": ActSpec(run=leak_crawl, rate_per_second=1 / 240, duration_seconds=3 * 3600.0),
    "leak-in-transaction": ActSpec(
        run=partial(leak, lose=lose_in_transaction), rate_per_second=0.5, duration_seconds=70.0
    ),
    "leak-client-read": ActSpec(
        run=partial(leak, lose=lose_in_client_read), rate_per_second=0.5, duration_seconds=70.0
    ),
    "leak-unnamed": ActSpec(run=leak_unnamed, rate_per_second=0.5, duration_seconds=70.0),
    "leak-many-pods": ActSpec(run=leak_many_pods, rate_per_second=0.5, size=10, duration_seconds=80.0, least_slots=24),
}
