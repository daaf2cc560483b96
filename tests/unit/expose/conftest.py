import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from batsignal.detect.signal import DeployRef, Finding, Signal, Subject
from batsignal.record.board import Board, PastIncident, ServerBoard, SlotSample, StoreHealth
from batsignal.record.endpoint_tally import EndpointTally
from batsignal.record.past_slots import PastSlots
from batsignal.record.tally import ConnectionCount, ServerTally
from batsignal.snapshot import Deploy, PollFailure, ProbeResult, Session, Slots, Snapshot

NOW = 1_760_000_700.0


@dataclass(frozen=True)
class Boards:
    """Builds boards around one moment, each as a server would really leave it."""

    now: float = NOW

    def count(self, application: str, version: str, sessions: int, state: str = "idle") -> ConnectionCount:
        return ConnectionCount(
            database="shop", user=application, application=application, version=version, state=state, sessions=sessions
        )

    def snapshot(self, used: int = 24, **facts: Any) -> Snapshot:
        sessions = tuple(
            Session(pid=1000 + n, backend_start=self.now - 600, state="idle", application_name="web@2.4.0")
            for n in range(used - 1)
        )
        given = {
            "sessions": sessions,
            "own_sessions": 1,
            "slots": Slots(max=100, superuser_reserved=3),
            "ping_seconds": 0.0004,
            "privileged": True,
            "server_version_num": 150018,
        }
        return Snapshot(server="db1", t=self.now - 1, **(given | facts))

    def history(self, used: int, seconds: int = 300, gap: range = range(0)) -> tuple[SlotSample, ...]:
        samples = []
        for n in range(seconds):
            t = self.now - seconds + n
            if n in gap:
                samples.append(SlotSample(t=t, used=None, usable=None))
                continue
            leaked = max(used - 24 - (seconds - n) // 2, 0)
            held = (("web@2.4.0", 12 + leaked), ("billing", 8 + n % 30 // 20), ("cron", n % 60 // 50 * 5))
            total = 1 + sum(sessions for _, sessions in held)
            samples.append(SlotSample(t=t, used=total, usable=97, by_application=held))
        return tuple(samples)

    def server(self, name: str = "db1", used: int = 24, **facts: Any) -> ServerBoard:
        snapshot = facts.pop("snapshot", None) or self.snapshot(used=used)
        usage = (
            self.count("web", "2.4.0", max(used - 14, 1)),
            self.count("web", "2.4.0", 2, "active"),
            self.count("billing", "", 8),
            self.count("", "", 3),
        )
        given = {
            "interval_seconds": 1.0,
            "snapshot": snapshot,
            "answered": snapshot,
            "answered_at": self.now - 1,
            "answered_usage": usage,
            "ticked_at": self.now - 1,
            "exhaustion_seconds": math.inf,
            "tally": ServerTally(usage=usage),
            "history": self.history(used),
        }
        return ServerBoard(name=name, **(given | facts))

    def failing(self, reason: Any, text: str, *, answered: bool = True, name: str = "db1") -> ServerBoard:
        before = self.server(name)
        failure = PollFailure(reason=reason, text=text, sqlstate="53300" if reason == "slots_full" else None)
        snapshot = Snapshot(server=name, t=self.now - 1, failure=failure, view="none")
        good = replace(before.snapshot, t=self.now - 41)
        return replace(
            before,
            snapshot=snapshot,
            answered=good if answered else None,
            answered_at=self.now - 41 if answered else None,
            answered_usage=before.answered_usage if answered else (),
            tally=ServerTally(),
            history=self.history(24, gap=range(260, 300)) if answered else (),
            exhaustion_seconds=None,
        )

    def signal(self, **facts: Any) -> Signal:
        given: dict[str, Any] = {
            "kind": "leak",
            "key": ("web",),
            "severity": "critical",
            "subject": Subject(application="web", version="2.4.0", user="web", database="shop", client="10.0.0.4"),
            "since": self.now - 76,
            "sessions": 38,
            "exhaustion_seconds": 110.0,
            "deploy": DeployRef(service="web", version="2.4.0", at=self.now - 96, previous="2.3.9"),
            "database_healthy": True,
            "evidence": (
                "38 sessions opened since 09:03:44, none used again, 0 closed",
                "ping 0.4 ms, no lock waits",
            ),
            "summary": "web@2.4.0 leaks connections: 38 held, +0.5/s; slots run out in 1m50s",
            "action": "Roll back web to 2.3.9. Do not restart the database: it is healthy.",
        }
        server = facts.pop("server", "db1")
        found = Finding(**(given | facts))
        return Signal(
            id=f"{server}-{found.kind}",
            server=server,
            detected=self.now - 50,
            raised_as=found.subject,
            finding=found,
        )

    def board(self, *servers: ServerBoard | str, **facts: Any) -> Board:
        """A server given as a name alone has not ended its first poll."""
        given: dict[str, Any] = {
            "version": "0.1.0",
            "started_at": self.now - 3600,
            "config_reload_at": self.now - 3600,
            "endpoints": {
                "web": EndpointTally(
                    endpoint="web",
                    service="web",
                    last=ProbeResult(
                        endpoint="web", service="web", at=self.now - 2, up=True, seconds=0.051, status=200
                    ),
                ),
            },
            "deploys": (Deploy(service="web", version="2.4.0", at=self.now - 96, previous="2.3.9"),),
        }
        boards = {server if isinstance(server, str) else server.name: server for server in servers}
        known = {name: None if isinstance(server, str) else server for name, server in boards.items()}
        return Board(servers=known, **(given | facts))

    def quiet(self) -> Board:
        return self.board(self.server())

    def lit(self) -> Board:
        return self.board(self.server(used=62, signals=(self.signal(),), exhaustion_seconds=110.0))

    def unreachable(self) -> Board:
        return self.board(self.failing("refused", "connection to 127.0.0.1 port 5432 refused: nothing listens there"))

    def unprivileged(self) -> Board:
        return self.board(self.server(snapshot=self.snapshot(privileged=False)))

    def starting(self) -> Board:
        return self.board("db1")

    def fleet(self) -> Board:
        """Eleven servers: one lit and full, one that does not answer, one that is not looked at yet."""
        well = [self.server(f"db{n}", used=20 + n * 7) for n in range(1, 9)]
        gone = self.failing("timeout", "no answer within 2 s", name="archive")
        full = self.server("shop", used=97, signals=(self.signal(server="shop", exhaustion_seconds=0.0),))
        recent = PastIncident(
            id="a1",
            server="db1",
            kind="leak",
            severity="critical",
            summary="web@2.4.0 leaks connections: 27 held",
            since=self.now - 900,
            detected=self.now - 870,
            ended=self.now - 240,
        )
        return self.board(*well, gone, full, "new", incidents=(recent,), store=StoreHealth(up=True))

    def two_signals(self) -> Board:
        other = self.signal(
            kind="endpoint_down",
            severity="warning",
            subject=Subject(endpoint="web"),
            sessions=0,
            exhaustion_seconds=math.inf,
            deploy=None,
            since=self.now - 15,
            evidence=("3 probes in a row failed: status 503",),
            summary="web fails its health check: status 503, 3 times in a row",
            action="See the leak above first.",
        )
        down = ProbeResult(
            endpoint="web", service="web", at=self.now - 2, up=False, seconds=2.0, status=503, reason="HTTP 503"
        )
        return self.board(
            self.server(used=62, signals=(self.signal(), other), exhaustion_seconds=110.0),
            self.server("db2"),
            "db3",
            endpoints={"web": EndpointTally(endpoint="web", service="web", last=down)},
        )

    def told(self, sessions: int = 38, **facts: Any) -> dict[str, Any]:
        """A signal as it is kept in JSON."""
        given: dict[str, Any] = {
            "since": self.now - 900,
            "sessions": sessions,
            "deploy": DeployRef(service="web", version="2.4.0", at=self.now - 920),
            "summary": f"web@2.4.0 leaks connections: {sessions} held",
        }
        return self.signal(**(given | facts)).as_json() | {"id": "a1", "detected": self.now - 870}

    def kept_incident(self) -> dict[str, Any]:
        """An incident as `/api/v1/incidents/ID` gives it: a leak that grew, was released, and ended."""
        now = self.now
        over = self.told(
            27,
            summary="web@2.4.0 leaked connections: 28 sessions held at most; it lasted 11 min",
            action="Nothing is to be undone or restarted for it now: it is over.",
        )
        events: list[dict[str, Any]] = [
            {"t": now - 870, "event": "raised", "signal": self.told(10, severity="warning", deploy=None)},
            {"t": now - 860, "event": "updated", "signal": self.told(12, severity="warning")},
            {"t": now - 700, "event": "updated", "signal": self.told(20)},
            *({"t": now - 680 + n, "event": "updated", "signal": self.told(20 + n)} for n in range(1, 9)),
            {
                "t": now - 250,
                "event": "released",
                "release": {"by": "alice", "ended": 26, "chosen": 28},
                "signal": self.told(28),
            },
            {"t": now - 240, "event": "cleared", "reason": "ended", "signal": over},
        ]
        return {
            "id": "a1",
            "open": False,
            "ended": now - 240,
            "reason": "ended",
            "by": None,
            "worst": "critical",
            "signal": over,
            "timeline": events,
        }

    def past_slots(self, **facts: Any) -> PastSlots:
        """What a recording tells of the slots around that incident."""
        samples = []
        for n in range(1000):
            held = (("web@2.4.0", 12 + min(max(n - 300, 0) // 12, 28)), ("billing", 8))
            used = 1 + sum(sessions for _, sessions in held)
            seen = {} if 500 <= n < 530 else {"used": used, "usable": 97, "by_application": held}
            samples.append(SlotSample(t=self.now - 1200 + n, **({"used": None, "usable": None} | seen)))
        given: dict[str, Any] = {
            "interval_seconds": 1.0,
            "samples": tuple(samples),
            "deploys": (Deploy(service="billing", version="7", at=self.now - 400),),
            "is_whole": True,
        }
        return PastSlots(**(given | facts))


@pytest.fixture
def boards() -> Boards:
    return Boards()


@pytest.fixture
def clock(boards: Boards) -> Callable[[], float]:
    return lambda: boards.now
