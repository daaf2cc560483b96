"""The table of what is lit: who, since when, what to do, and where the runbook is. Two dashboards show it."""

from grafana_foundation_sdk.builders import table

from batsignal.expose.page.wording import KINDS
from boards import looks
from boards.expressions import each
from boards.panels import Ask, Column, Frame, rows

_WHO = (
    *("server", "kind", "severity", "application", "version", "user", "database", "client"),
    *("query_id", "endpoint", "pool", "limit"),
)


def lit_now(frame: Frame, *, where: str = "") -> table.Panel:
    """Return the signals that are lit at the end of the chosen time, those that wake somebody first."""
    return rows(
        frame,
        Ask(expr=_with_advice(each("batsignal_signal", *_WHO, "deploy", where=where))),
        Ask(expr=f"{each('batsignal_signal_since_timestamp_seconds', *_WHO, where=where)} * 1000"),
        Ask(expr=each("batsignal_signal_sessions", *_WHO, where=where)),
        says="Nothing is lit.",
        worst_first=(("Severity", False), ("Since", True)),
        columns=(
            Column(field="severity", name="Severity", mapping=looks.SEVERITY, color=True, width=90),
            Column(field="server", name="Server", width=100, link=("This server", _OVERVIEW)),
            Column(field="kind", name="What", mapping=looks.KIND, width=150),
            Column(field="application", name="Who", width=120),
            Column(field="version", name="Version", width=90),
            Column(field="Value #B", name="Since", unit="dateTimeFromNow", width=130, steps=looks.plain()),
            Column(field="Value #C", name="Sessions", unit="short", width=90, decimals=0),
            Column(field="deploy", name="Deploy before it", width=140),
            Column(field="advice", name="What to do", mapping=looks.ACTION, wraps=True, width=420),
            Column(
                field="runbook", name="Runbook", width=190, link=("Runbook", "${status_page}/runbooks/${__value.text}")
            ),
            Column(field="client", name="Client"),
            Column(field="user", name="User"),
            Column(field="database", name="Database"),
            Column(field="query_id", name="Statement"),
            Column(field="pool", name="Pool"),
            Column(field="endpoint", name="Endpoint"),
            Column(field="limit", name="Limit"),
            Column(field="Value #A"),
        ),
    )


_OVERVIEW = "/d/batsignal?var-server=${__value.text}&${datasource:queryparam}&${__url_time_range}"


def _with_advice(expression: str) -> str:
    """Put two labels beside the kind: one that a mapping turns into advice, one that names the runbook."""
    expression = f'label_join({expression}, "advice", "", "kind")'
    for kind in KINDS:
        expression = f'label_replace({expression}, "runbook", "{looks.runbook(kind)}", "kind", "{kind}")'
    return expression
