"""Colours, thresholds and the words beside them. Colour never stands alone: whatever is coloured says it in words too.

Thresholds are those of the rules (`batsignal.config.Thresholds`); what no rule judges has none.
"""

from collections.abc import Mapping

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.models import dashboard as model

from batsignal.config import Thresholds
from batsignal.expose.page.wording import KINDS, STATES, VIEWS

GOOD, WARNING, CRITICAL, CALM, UNKNOWN = "green", "orange", "red", "blue", "gray"
_JUDGED = Thresholds()

Steps = build.ThresholdsConfig
Mapped = model.ValueMap | model.SpecialValueMap


def steps(base: str, *above: tuple[float, str]) -> Steps:
    """Return absolute thresholds: the base colour, then each colour from its value on."""
    marks = [model.Threshold(value=None, color=base), *(model.Threshold(value=at, color=color) for at, color in above)]
    return build.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(marks)


def slots_ratio() -> Steps:
    """Return what `BatSignalSaturation` judges by."""
    return steps(GOOD, (_JUDGED.saturation_warning_ratio, WARNING), (_JUDGED.saturation_critical_ratio, CRITICAL))


def time_left() -> Steps:
    """Return what makes a leak critical; more time than that is a warning, for something grows."""
    return steps(CRITICAL, (_JUDGED.leak_critical_exhaustion_seconds, WARNING))


def plain(color: str = CALM) -> Steps:
    """Return no judgement: one colour."""
    return steps(color)


def any_is_bad() -> Steps:
    """Return: nought is good, anything above is bad."""
    return steps(GOOD, (1, CRITICAL))


def words(meaning: Mapping[str, tuple[str, str]]) -> model.ValueMap:
    """Return a mapping of values to words and colours."""
    return model.ValueMap(
        options={
            value: model.ValueMappingResult(text=text, color=color, index=index)
            for index, (value, (text, color)) in enumerate(meaning.items())
        }
    )


LIT = words({"0": ("dark", GOOD), "1": ("warning", WARNING), "2": ("LIT: critical", CRITICAL)})
SEVERITY = words({"critical": ("critical", CRITICAL), "warning": ("warning", WARNING)})
UP = words({"1": ("up", GOOD), "0": ("DOWN", CRITICAL)})
SUCCESS = words({"1": ("ok", GOOD), "0": ("FAILS", CRITICAL)})
HEALTHY = words(
    {
        "1": ("healthy: do NOT restart it", GOOD),
        "0": ("not well itself: look at it", CRITICAL),
        "2": ("nothing is lit", GOOD),
    }
)
KIND = words({kind: (text, CALM) for kind, text in KINDS.items()})
_STATE_COLORS = {"up": GOOD, "slots_full": CRITICAL, "not_accepting": WARNING}
STATE = words({state: (text, _STATE_COLORS.get(state, CRITICAL)) for state, text in STATES.items()})
VIEW = words(
    {
        view: (text, GOOD if view == "session" else CRITICAL if view == "none" else WARNING)
        for view, text in VIEWS.items()
    }
)

_HEALTHY = "Do not restart a healthy database."
TO_DO: Mapping[str, str] = {
    "leak": f"Undo the deploy, then end its sessions. {_HEALTHY}",
    "pool_starvation": f"Undo the deploy, or restart that service: its pool is empty, the server is not. {_HEALTHY}",
    "query_pileup": f"Undo the deploy that brought the statement, then end its sessions. {_HEALTHY}",
    "lock_pileup": f"End the blocker, not those who wait for it. {_HEALTHY}",
    "storm": "Stop or slow the clients that open sessions. A restart makes all of them come again.",
    "idle_in_transaction": "End that transaction, then find who forgets to.",
    "saturation": "Find the largest holder and make room there; raise the limit last.",
    "endpoint_down": "Look at the service itself: its log, its processes, its deploy.",
    "endpoint_slow": "Look at the service and at what it waits for.",
    "database_unreachable": "Look at the server's host, process and network.",
}
ACTION = words({kind: (text, CALM) for kind, text in TO_DO.items()})


def runbook(kind: str) -> str:
    """Return the name of the alert, and so of the runbook, that a kind pages with.

    >>> runbook("pool_starvation")
    'BatSignalPoolStarvation'
    """
    return "BatSignal" + "".join(word.capitalize() for word in kind.split("_"))
