"""How a drill's events read: a timeline for a person, or one JSON object a line for a program.

Pure: events go in, lines come out. It must not look at the world or print.
"""

import json
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from batsignal.cli.demo_timeline import Line, bar, clock, reserved, slots_cell
from batsignal.cli.terminal import Tone
from batsignal.drills.drill_event import DrillEvent
from batsignal.spelling import count, duration

# Of slots that come and go a line is worth its place once this share of them did, else now and then; of refusals and of
# the incident's sessions, once there are twice as many.
SLOTS_STEP_RATIO = 0.05
SLOTS_SECONDS = 5.0
MANY_FACTOR = 2

# libpq says before the server's own words by which way it came: addresses that differ from one to the next.
_REFUSED_BY = re.compile(r"^connection to server .*? failed: (?=FATAL)")


def as_json(event: DrillEvent) -> str:
    """Return one line of `--format json`."""
    return json.dumps({"t": event.t, "event": event.event, **event.facts}, allow_nan=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Slots:
    """What was told last of the slots."""

    t: float
    used: int
    lost: int
    text: str

    def is_worth(self, now: "_Slots", usable: int) -> bool:
        """Whether what is so now is worth a line after this one."""
        if now.text == self.text:
            return False
        has_moved = abs(now.used - self.used) >= SLOTS_STEP_RATIO * usable
        return has_moved or now.lost > MANY_FACTOR * self.lost or now.t - self.t >= SLOTS_SECONDS


class DrillTimeline:
    """Folds events into lines; times are the wall clock's, and seconds since the onset once there is one."""

    def __init__(self, *, draws: bool, page_url: str | None = None) -> None:
        self._draws = draws
        self._page_url = page_url
        self._began: float | None = None
        self._onset: float | None = None
        self._lost = 0
        self._budget = 0
        self._refusal = ""
        self._refused_told = 0
        self._slots: _Slots | None = None
        self._said: dict[str, set[tuple[str, Any]]] = {}
        self._verdicts: list[Line] = []

    def lines(self, event: DrillEvent) -> Iterator[Line]:
        """Yield what is to be said of an event, if anything."""
        told = getattr(self, f"_on_{event.event}", None)
        if told is not None:
            yield from told(event)

    # -- one method an event -----------------------------------------------------------------------------------------

    def _on_calm(self, event: DrillEvent) -> Iterator[Line]:
        self._began = event.t
        facts = event.facts
        self._budget = facts["budget"]
        yield Line(text=f"{facts['drill']}: {facts['story']}", tone="strong")
        yield Line(text=f"{facts['slots']} usable slots, at most {facts['budget']} for the drill", tone="faint")
        then = (
            "" if facts["then_seconds"] is None else f", then {duration(facts['then_seconds'])}; Ctrl-C ends it sooner"
        )
        yield self._line(event, f"calm, for {facts['seconds']:.0f} s{then}", "faint")

    def _on_deployed(self, event: DrillEvent) -> Iterator[Line]:
        facts = event.facts
        before = f" (before: {facts['previous']})" if facts["previous"] else ""
        yield self._line(event, f"--- {facts['service']} {facts['version']} is deployed{before}", "strong")

    def _on_onset(self, event: DrillEvent) -> Iterator[Line]:
        self._onset = event.t if self._onset is None else self._onset
        yield self._line(event, f"*** {event.facts['kind']} begins{_of(event.facts['subject'])}", "strong")

    def _on_lost(self, event: DrillEvent) -> Iterator[Line]:
        self._lost = event.facts["sessions"]
        yield from ()

    def _on_note(self, event: DrillEvent) -> Iterator[Line]:
        yield self._line(event, event.facts["text"])

    def _on_slots(self, event: DrillEvent) -> Iterator[Line]:
        used, usable = event.facts["used"], event.facts["usable"]
        if used is None:
            self._slots = None
            yield self._line(event, "slots   ?      the server is away", "alarm")
            return
        drawn = bar(used, usable, draws=self._draws)
        # Seats are taken before a session is there and given back after it: with all slots ours, they say nothing.
        seats = f"  drill's seats {event.facts['held']}/{self._budget}" if self._budget < usable else ""
        lost = f"  incident: {count(self._lost, 'session')} so far" if self._lost else ""
        text = f"slots {slots_cell(used, usable)} {drawn}{reserved(used, usable)}{seats}{lost}"
        now = _Slots(t=event.t, used=used, lost=self._lost, text=text)
        if self._slots is None or self._slots.is_worth(now, usable):
            self._slots = now
            yield self._line(event, text)

    def _on_refused(self, event: DrillEvent) -> Iterator[Line]:
        words, times = _REFUSED_BY.sub("", event.facts["text"]), event.facts["count"]
        if words == self._refusal and times < MANY_FACTOR * self._refused_told:
            return
        why = "" if words == self._refusal else f": {words}"
        self._refusal, self._refused_told = words, times
        yield self._line(event, f"refused {times} times so far{why}", "alarm")

    def _on_exhausted(self, event: DrillEvent) -> Iterator[Line]:
        which = "no slot is left on the server" if event.facts.get("limit") == "server" else "the limit is reached"
        yield self._line(event, f"*** {which}", "alarm")

    def _on_raised(self, event: DrillEvent) -> Iterator[Line]:
        facts = event.facts
        self._is_new(facts)
        tone: Tone = "alarm" if facts["severity"] == "critical" else "strong"
        yield self._line(event, f"*** SIGNAL LIT: {facts['kind']} ({facts['severity']}){self._after(event.t)}", tone)
        yield Line(text=f"    {facts['summary']}", tone=tone)
        yield from (Line(text=f"    - {evidence}") for evidence in facts["evidence"])
        yield Line(text=f"    => {facts['action']}", tone="strong")
        if self._page_url:
            yield Line(text=f"    {self._page_url}")

    def _on_updated(self, event: DrillEvent) -> Iterator[Line]:
        facts = event.facts
        if self._is_new(facts):
            yield self._line(event, f"signal: {facts['kind']} ({facts['severity']}): {facts['summary']}")

    def _on_cleared(self, event: DrillEvent) -> Iterator[Line]:
        yield self._line(event, f"signal out: {event.facts['kind']}", "good")

    def _on_done(self, event: DrillEvent) -> Iterator[Line]:
        yield self._line(event, "it is over by itself")

    def _on_ended(self, event: DrillEvent) -> Iterator[Line]:
        yield self._line(event, "the drill ends", "faint")

    def _on_gone(self, event: DrillEvent) -> Iterator[Line]:
        yield self._line(event, event.facts["text"], "alarm")

    def _on_truth(self, event: DrillEvent) -> Iterator[Line]:
        facts = event.facts
        yield Line(text=f"What really happened: {facts['kind']}{_of(facts['subject'])}", tone="strong")
        yield Line(text=f"  onset       {_wall_clock(facts['onset'])}{'' if not facts['optional'] else ' (a symptom)'}")
        yield Line(text=f"  bound       {facts['bound_seconds']:.0f} s after the onset")
        asked, achieved = facts["rate_asked"], facts["rate_achieved"]
        if asked is not None:
            made = "too few to tell" if achieved is None else f"{achieved:.3g}/s achieved"
            yield Line(text=f"  rate        {made}, {asked:.3g}/s asked")
        if facts["exhaustion"] is not None:
            after = facts["exhaustion"] - facts["onset"]
            would = "would come at " if facts["predicted"] else ""
            yield Line(text=f"  exhaustion  {would}{_wall_clock(facts['exhaustion'])}, {clock(after)} after the onset")
        else:
            yield Line(text="  exhaustion  none")
        if facts["deploy"]:
            yield Line(text=f"  deploy      {facts['deploy']['service']} {facts['deploy']['version']}")

    def _on_verdict(self, event: DrillEvent) -> Iterator[Line]:
        outcome = event.facts["outcome"]
        tone: Tone = "alarm" if event.facts["finding"] else "good" if outcome in {"named", "quiet"} else "plain"
        self._verdicts.append(Line(text=event.facts["text"], tone=tone))
        yield from ()

    def _on_clean(self, event: DrillEvent) -> Iterator[Line]:
        yield from self._verdicts
        yield from (Line(text=f"left behind: {line}", tone="alarm") for line in event.facts["left"])
        if event.facts["by"] is not None:
            yield Line(text=f"The clean-up goes on in process {event.facts['by']}.", tone="alarm")
        elif not event.facts["left"]:
            yield Line(text="Clean: everything that the drill made is gone.", tone="faint")

    # -- within ------------------------------------------------------------------------------------------------------

    def _is_new(self, facts: Mapping[str, Any]) -> bool:
        """Whether a signal says what it has not said yet: who it is may go to and fro with each look's sessions."""
        deploy = facts.get("deploy") or {}
        now = {
            ("severity", facts["severity"]),
            ("deploy", (deploy.get("service"), deploy.get("version"))),
            *facts.get("subject", {}).items(),
        }
        said = self._said.setdefault(facts.get("id", facts["kind"]), set())
        # A turn back to critical or to a warning is told each time.
        turned = [fact for fact in said if fact[0] == "severity" and fact not in now]
        is_new = bool(turned) or not now <= said
        said.difference_update(turned)
        said |= now
        return is_new

    def _line(self, event: DrillEvent, text: str, tone: Tone = "plain") -> Line:
        return Line(text=f"{_wall_clock(event.t)}  {self._since(event.t):>13}  {text}", tone=tone)

    def _since(self, t: float) -> str:
        if self._onset is not None:
            return f"onset {'-' if t < self._onset - 0.5 else '+'}{clock(abs(t - self._onset))}"
        return f"{clock(t - (self._began or t))}"

    def _after(self, t: float) -> str:
        return f", {max(t - self._onset, 0.0):.0f} s after the onset" if self._onset is not None else ""


def _wall_clock(t: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(t))


def _of(subject: Mapping[str, Any]) -> str:
    known = " ".join(f"{name}={value}" for name, value in subject.items() if value is not None)
    return f": {known}" if known else ""
