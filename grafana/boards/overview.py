"""*BatSignal*: is it lit, who, since when, how long is left, and what to do. Its first screen needs no scrolling."""

from grafana_foundation_sdk.models import common

from boards import looks
from boards.board import Board
from boards.expressions import SERVER, each, held, named, quantile, worst
from boards.lit import lit_now
from boards.panels import Ask, Frame, lines, number, states

UID = "batsignal"
_ENDPOINTS = "batsignal_endpoint_duration_seconds"


def board() -> Board:
    """Return the dashboard."""
    made = Board(
        uid=UID, title="BatSignal", text="Is the signal lit, who takes the connections, since when, and what to do."
    )
    _now(made)
    _slots(made)
    _health(made)
    return made


def _now(board: Board) -> None:
    critical = f'max(batsignal_signals{{{SERVER}, severity="critical"}} > bool 0)'
    warning = f'max(batsignal_signals{{{SERVER}, severity="warning"}} > bool 0)'
    left = f"min(batsignal_exhaustion_seconds{{{SERVER}}})"
    nothing_grows = f"count(batsignal_exhaustion_seconds{{{SERVER}}}) * 0 - 1"
    silent = f"count({each('batsignal_up', 'server')} == 0) or count(batsignal_up{{{SERVER}}}) * 0"
    # Nothing lit is 2, and only where a daemon says so: neither no daemon nor what it does not know is good news.
    healthy = f"min(batsignal_signal_healthy{{{SERVER}}}) or (max(batsignal_signals{{{SERVER}}}) == 0) + 2"
    board.add(
        number(
            Frame(
                title="Signal",
                text="Whether anything is lit: critical wakes a person, a warning waits for the morning. No data:"
                " Prometheus gets nothing from BatSignal, see *BatSignal itself*.",
                width=4,
                height=4,
            ),
            Ask(expr=f"clamp_max(2 * {critical} + {warning}, 2)"),
            unit="none",
            steps=looks.steps(looks.GOOD, (1, looks.WARNING), (2, looks.CRITICAL)),
            mapping=looks.LIT,
            says="NO DATA: blind",
            link=("Status page", "${status_page}/"),
        ),
        number(
            Frame(
                title="Time left",
                text="Until the first of the chosen servers has no slot left, if things go on as they do. Red under the"
                " 30 minutes from which a leak wakes somebody.",
                width=4,
                height=4,
            ),
            Ask(expr=f"({left} < +Inf) or {nothing_grows}"),
            unit="s",
            steps=looks.time_left(),
            mapping=looks.words({"-1": ("not running out", looks.GOOD)}),
            says="not known",
        ),
        number(
            Frame(
                title="Slots used, fullest server",
                text="Sessions over the slots that ordinary roles can take. Thresholds are those of"
                " BatSignalSaturation. Above 100 %: superusers have taken reserved slots, too.",
                width=4,
                height=4,
            ),
            Ask(
                expr=f"max({each('batsignal_connection_slots_used', 'server')}"
                f" / {each('batsignal_connection_slots_usable', 'server')})"
            ),
            unit="percentunit",
            steps=looks.slots_ratio(),
            says="not known",
        ),
        number(
            Frame(
                title="The database itself",
                text="While something is lit: whether the database is well by its own measures (answers, commits,"
                " waits)."
                " Healthy means that a restart mends nothing.",
                width=5,
                height=4,
            ),
            Ask(expr=healthy),
            unit="none",
            mapping=looks.HEALTHY,
            says="not known",
        ),
        number(
            Frame(
                title="Servers that do not answer",
                text="How many of the chosen servers gave no answer in the last tick. *Fleet* says which, and why.",
                width=3,
                height=4,
            ),
            Ask(expr=silent),
            unit="none",
            steps=looks.any_is_bad(),
            mapping=looks.words({"0": ("all answer", looks.GOOD)}),
            link=("Fleet", "/d/batsignal-fleet?${datasource:queryparam}&${__url_time_range}"),
        ),
        number(
            Frame(
                title="Newest deploy",
                text="The version that began to run last, found in application_name or told by the pipeline. Deploys"
                " of all"
                " services: they know no server.",
                width=4,
                height=4,
            ),
            Ask(
                expr="topk(1, max by (service, version) (batsignal_deploy_timestamp_seconds)) * 1000",
                legend="{{service}}@{{version}}",
            ),
            unit="dateTimeFromNow",
            says="none known",
            shows=common.BigValueTextMode.VALUE_AND_NAME,
        ),
    )
    board.add(
        lit_now(
            Frame(
                title="Who, since when, and what to do",
                text="Every signal that is lit at the end of the chosen time. What was lit before: see the timeline"
                " below.",
                width=24,
                height=6,
            )
        )
    )


def _slots(board: Board) -> None:
    usable = f"sum({each('batsignal_connection_slots_usable', 'server')})"
    board.add(
        lines(
            Frame(
                title="Slots by application, against the usable ones",
                text="Sessions held by each application, as the mean between two points, on top of each other; the"
                " dashed line"
                " is what ordinary roles can take on the chosen servers together. Blue marks are deploys, red ones"
                " onsets.",
                width=16,
                height=9,
            ),
            Ask(expr=named(held("application")), legend="{{application}}"),
            Ask(expr=usable, legend="usable slots"),
            unit="short",
            stacked=True,
            dashed="usable slots",
            decimals=1,
        ),
        lines(
            Frame(
                title="Slots used, worst moments",
                text="Used over usable slots, of the fullest 1 % of seconds and of the median one: a burst that is"
                " over in two"
                " seconds is in here. Resolution is that of the histogram's buckets.",
                width=8,
                height=9,
            ),
            Ask(
                expr=quantile(0.99, "batsignal_connection_slots_used_ratio", "server"), legend="{{server}}, fullest 1 %"
            ),
            Ask(expr=quantile(0.5, "batsignal_connection_slots_used_ratio", "server"), legend="{{server}}, median"),
            unit="percentunit",
            steps=looks.slots_ratio(),
            most=1,
        ),
    )
    lit = ("server", "kind", "application")
    critical = worst("batsignal_signal", *lit, where='severity="critical"')
    warning = worst("batsignal_signal", *lit, where='severity="warning"')
    board.add(
        states(
            Frame(
                title="Signals over time",
                text="What was lit, and when. A bar is as long as the signal, and at least one step of the picture.",
                width=24,
                height=6,
            ),
            Ask(expr=f"2 * {critical} or {warning}", legend="{{kind}} {{application}} on {{server}}"),
            mapping=looks.LIT,
        )
    )


def _health(board: Board) -> None:
    board.add(
        states(
            Frame(
                title="Health endpoints",
                text="Whether probes succeeded; one that failed between two points shows. Three in a row light"
                " endpoint_down."
                " Endpoints of all servers.",
                width=6,
                height=7,
            ),
            Ask(
                expr="min by (endpoint, service) (min_over_time(batsignal_endpoint_up[$__rate_interval]))",
                legend="{{endpoint}} ({{service}})",
            ),
            mapping=looks.UP,
        ),
        lines(
            Frame(
                title="Health endpoints: time to answer",
                text="The slowest 5 % of probes, and their mean, whether they succeeded or not.",
                width=6,
                height=7,
            ),
            Ask(expr=quantile(0.95, _ENDPOINTS, "endpoint", where=""), legend="{{endpoint}}, slowest 5 %"),
            Ask(
                expr=f"sum by (endpoint) (rate({_ENDPOINTS}_sum[$__rate_interval]))"
                f" / sum by (endpoint) (rate({_ENDPOINTS}_count[$__rate_interval]))",
                legend="{{endpoint}}, mean",
            ),
            unit="s",
        ),
        lines(
            Frame(
                title="Where a probe's time goes",
                text="The parts of each endpoint's last probe. A part that was not reached is missing; much time in"
                " `wait` with"
                " little in `connect` is the application's own.",
                width=6,
                height=7,
            ),
            Ask(
                expr="max by (endpoint, phase) (batsignal_endpoint_phase_seconds)",
                legend="{{endpoint}}: {{phase}}",
            ),
            unit="s",
            stacked=True,
        ),
        lines(
            Frame(
                title="Certificates run out in",
                text="Time until the certificate of each health endpoint expires. Absent where none speaks TLS.",
                width=6,
                height=7,
            ),
            Ask(
                expr="min by (endpoint) (batsignal_endpoint_tls_expiry_timestamp_seconds) - time()",
                legend="{{endpoint}}",
            ),
            unit="s",
            least=None,
        ),
        heading="Are users hurt?",
    )
    board.add(
        lines(
            Frame(
                title="The database's own answer",
                text="Round trip of the cheapest query, once a second: the slowest 1 % and the median. Flat while an"
                " incident"
                " lasts: the database is not the cause.",
                width=6,
                height=7,
            ),
            Ask(expr=quantile(0.99, "batsignal_ping_seconds", "server"), legend="{{server}}, slowest 1 %"),
            Ask(expr=quantile(0.5, "batsignal_ping_seconds", "server"), legend="{{server}}, median"),
            unit="s",
        ),
        lines(
            Frame(
                title="Processor and memory of the server's host",
                text="Share in use. Absent unless BatSignal runs on the server's host.",
                width=6,
                height=7,
            ),
            Ask(expr=worst("batsignal_host_cpu_ratio", "server"), legend="{{server}}, processor"),
            Ask(expr=worst("batsignal_host_memory_used_ratio", "server"), legend="{{server}}, memory"),
            unit="percentunit",
            most=1,
        ),
        lines(
            Frame(
                title="Load of each processor",
                text="Processes that run or wait to, over one minute, for each processor of the server's host."
                " Absent unless"
                " BatSignal runs there.",
                width=6,
                height=7,
            ),
            Ask(
                expr=f"{worst('batsignal_host_load1', 'server')} / {each('batsignal_host_cpus', 'server')}",
                legend="{{server}}",
            ),
            unit="short",
        ),
        lines(
            Frame(
                title="Memory of the server's processes",
                text="What PostgreSQL's processes keep in memory together, shared pages counted in each. Absent unless"
                " BatSignal runs on the server's host.",
                width=6,
                height=7,
            ),
            Ask(expr=worst("batsignal_server_resident_bytes", "server"), legend="{{server}}"),
            unit="bytes",
        ),
        heading="Is it the database?",
    )
