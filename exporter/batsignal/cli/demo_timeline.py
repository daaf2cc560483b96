"""The demo's live timeline: what is told of each moment, and when each turning point came.

Pure: moments go in, lines come out; the clock is part of the moment. It must not look at the world or print.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from batsignal.cli.terminal import Tone
from batsignal.drills.actors.shoppers import Mood
from batsignal.drills.scene import RELEASE, SERVICE, Leak
from batsignal.drills.watcher import Sighting, SignalSeen
from batsignal.spelling import duration

BAR_CELLS = 20
QUIET_SECONDS = 5.0
SETTLED_QUIET_SECONDS = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line to show."""

    text: str = ""
    tone: Tone = "plain"


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """All that is known at `t`. `sighting` is None when the daemon does not answer, `leak` when the shop does not.

    `failed_at` is the first purchase that failed after the deploy.
    """

    t: float
    sighting: Sighting | None
    mood: Mood
    leak: Leak | None
    failed_at: float | None


def clock(seconds: float) -> str:
    """Spell a duration as minutes and seconds.

    >>> clock(166.4), clock(-3.2)
    ('2:46', '-0:03')
    """
    sign = "-" if seconds < 0 else ""
    minutes, rest = divmod(round(abs(seconds)), 60)
    return f"{sign}{minutes}:{rest:02}"


def bar(used: int, usable: int, *, draws: bool) -> str:
    """Draw how full the slots are.

    >>> bar(50, 100, draws=False)
    '##########..........'
    """
    full, empty = ("█", "░") if draws else ("#", ".")
    cells = min(round(BAR_CELLS * used / usable), BAR_CELLS) if usable else 0
    return full * cells + empty * (BAR_CELLS - cells)


def slots_cell(used: int, usable: int) -> str:
    """Spell how many of the usable slots are taken, in a column of its own.

    >>> slots_cell(7, 97), slots_cell(98, 97)
    ('  7/97 ', ' 97/97 ')
    """
    return f"{min(used, usable):3}/{usable:<3}"


def reserved(used: int, usable: int) -> str:
    """Say how many reserved slots are taken beyond the usable ones, if any.

    >>> reserved(98, 97), reserved(97, 97)
    (' +1 reserved', '')
    """
    return f" +{used - usable} reserved" if used > usable else ""


class Timeline:
    """Folds moments into lines and remembers the turning points, each an instant or None until it came."""

    def __init__(self, page_url: str, *, draws: bool) -> None:
        self._page_url = page_url
        self._draws = draws
        self._lit: dict[str, SignalSeen] = {}
        self._shown: tuple[object, ...] = ()
        self._shown_at = 0.0
        self.opened_at: float | None = None
        self.deployed_at: float | None = None
        self.began_at: float | None = None
        self.signal_at: float | None = None
        self.full_at: float | None = None
        self.failed_at: float | None = None

    @property
    def settled(self) -> bool:
        """Whether everything that is to happen has happened."""
        return None not in (self.signal_at, self.full_at, self.failed_at)

    def deploy(self, t: float) -> list[Line]:
        """Tell of the deploy."""
        self.deployed_at = t
        told = f"--- {SERVICE} {RELEASE.version_after} is deployed: {RELEASE.story}"
        return [Line(), Line(text=told, tone="strong"), Line()]

    def observe(self, moment: Moment) -> list[Line]:
        """Return what is to be said of a moment: turning points always, the state when it changed or now and then."""
        self.opened_at = self.opened_at or moment.t
        lines = [*self._turning_points(moment), *self._signals(moment)]
        state = self._state(moment)
        changed = state != self._shown
        least_seconds = QUIET_SECONDS if self.settled else 0.0
        most_seconds = SETTLED_QUIET_SECONDS if self.settled else QUIET_SECONDS
        if lines or moment.t - self._shown_at >= (least_seconds if changed else most_seconds):
            self._shown, self._shown_at = state, moment.t
            lines.insert(0, self._state_line(moment))
        return lines

    def closing(self) -> list[Line]:
        """Return the summary: each turning point after the deploy, and how long after the first lost session."""
        if self.deployed_at is None:
            return []
        rows = [
            (self.deployed_at, f"{SERVICE} {RELEASE.version_after} deployed"),
            (self.began_at, "first session lost"),
            (self.signal_at, f"signal lit: {RELEASE.kind}"),
            (self.full_at, "no slot left"),
            (self.failed_at, "the shop turned its first customer away"),
        ]
        came = sorted(((at, what) for at, what in rows if at is not None), key=lambda row: row[0])
        lines = [Line(), Line(text="What happened", tone="strong")]
        for at, what in came:
            lasted = at - self.began_at if self.began_at is not None else 0.0
            after = f"  ({duration(lasted)} after the first loss)" if lasted > 0 else ""
            lines.append(Line(text=f"  +{clock(at - self.deployed_at)}  {what}{after}"))
        lines += [Line(text=f"  not yet  {what}", tone="faint") for at, what in rows if at is None]
        return lines

    def _turning_points(self, moment: Moment) -> Iterator[Line]:
        if self.deployed_at is None:
            return
        sighting = moment.sighting
        if self.began_at is None and moment.leak is not None and moment.leak.first_at is not None:
            self.began_at = moment.leak.first_at
            yield self._event("the first session is lost", "plain", self.began_at)
        if self.full_at is None and sighting is not None and _is_full(sighting):
            self.full_at = moment.t
            yield self._event("no slot is left on the server", "alarm", moment.t)
        if self.failed_at is None and moment.failed_at is not None:
            self.failed_at = moment.failed_at
            yield self._event("the shop turns its first customer away", "alarm", moment.failed_at)

    def _signals(self, moment: Moment) -> Iterator[Line]:
        if moment.sighting is None:
            return
        lit = {seen.id: seen for seen in moment.sighting.signals}
        for seen in lit.values():
            if seen.id not in self._lit:
                yield from self._raised(seen)
        for seen in self._lit.values():
            if seen.id not in lit:
                yield self._event(f"signal out: {seen.kind}", "good", moment.t)
        self._lit = lit

    def _raised(self, seen: SignalSeen) -> Iterator[Line]:
        after = ""
        if seen.kind == RELEASE.kind and self.signal_at is None and self.deployed_at is not None:
            self.signal_at = seen.detected
            after = (
                f", {duration(seen.detected - self.began_at)} after the first lost session"
                if self.began_at is not None
                else ""
            )
        tone: Tone = "alarm" if seen.severity == "critical" else "strong"
        yield Line()
        yield self._event(f"SIGNAL LIT: {seen.kind} ({seen.severity}){after}", tone, seen.detected)
        yield Line(text=f"    {seen.summary}", tone=tone)
        yield from (Line(text=f"    - {evidence}") for evidence in seen.evidence)
        yield Line(text=f"    => {seen.action}", tone="strong")
        yield Line(text=f"    {self._page_url}")
        yield Line()

    def _event(self, text: str, tone: Tone, t: float) -> Line:
        return Line(text=f"*** {self._when(t)}  {text}", tone=tone)

    def _when(self, t: float) -> str:
        if self.deployed_at is None:
            return f"calm  {clock(t - (self.opened_at or t)):>5}"
        return f"deploy {'+' + clock(t - self.deployed_at):>6}"

    def _state(self, moment: Moment) -> tuple[object, ...]:
        sighting = moment.sighting
        if sighting is None:
            return ("silent",)
        failed_tenths = round(moment.mood.failed_ratio * 10)
        return (sighting.state, sighting.slots_used, tuple(sorted(sighting.sessions.items())), failed_tenths)

    def _state_line(self, moment: Moment) -> Line:
        mood, sighting = moment.mood, moment.sighting
        wait = "  -  " if mood.p50_seconds is None else f"{mood.p50_seconds * 1000:5.0f}"
        shop = f"shop {wait} ms {mood.failed_ratio:4.0%} failed"
        when = self._when(moment.t)
        tone: Tone = "faint" if self.deployed_at is None else "plain"
        if sighting is None:
            return Line(text=f"{when}  the daemon does not answer  {shop}", tone="alarm")
        used, usable = sighting.slots_used, sighting.slots_usable
        if used is None or usable is None:
            slots = f"slots   ?     {sighting.state:<{BAR_CELLS}}"
        else:
            drawn = bar(used, usable, draws=self._draws)
            slots = f"slots {slots_cell(used, usable)} {drawn}{reserved(used, usable)}"
        sessions = "  ".join(f"{SERVICE}@{version} {count}" for version, count in sorted(sighting.sessions.items()))
        return Line(text=f"{when}  {slots}  {shop}  {sessions}", tone=tone)


def _is_full(sighting: Sighting) -> bool:
    used, usable = sighting.slots_used, sighting.slots_usable
    return sighting.state == "slots_full" or (used is not None and usable is not None and used >= usable)
