"""*BatSignal itself*: does it run, does it look, does it remember, and what does it cost."""

from boards import looks
from boards.board import Board
from boards.expressions import SERVER, each, worst
from boards.panels import Ask, Column, Frame, lines, number, rows, states

UID = "batsignal-itself"
# The process' own metrics have no name of ours: taken of the targets that say they are BatSignal.
_OURS = "and on (job, instance) batsignal_build_info"
_DAEMON = "{{instance}}"
_CONFIG, _WEB_CONFIG = "batsignal_config_last_reload_successful", "batsignal_web_config_last_reload_successful"


def board() -> Board:
    """Return the dashboard."""
    made = Board(
        uid=UID, title="BatSignal itself", text="Whether BatSignal runs, looks and remembers, and what it costs."
    )
    _runs(made)
    _looks(made)
    _remembers(made)
    _costs(made)
    return made


def _runs(board: Board) -> None:
    target = 'up{job="batsignal"}'
    board.add(
        number(
            Frame(
                title="Daemons that do not answer",
                text="Targets of the job `batsignal` that Prometheus cannot scrape; BatSignalDown pages for them."
                " The rule names"
                " the job too.",
                width=4,
                height=4,
            ),
            Ask(expr=f"count({target} == 0) or count({target}) * 0"),
            unit="none",
            steps=looks.any_is_bad(),
            mapping=looks.words({"0": ("all answer", looks.GOOD)}),
            says="NO TARGET",
        ),
        number(
            Frame(
                title="Oldest look",
                text="Age of the last tick, of the server that was looked at longest ago. It should be a second or two;"
                " BatSignalDown pages above 15 s.",
                width=4,
                height=4,
            ),
            Ask(expr=f"max(time() - {each('batsignal_last_tick_timestamp_seconds', 'server')})"),
            unit="s",
            steps=looks.steps(looks.GOOD, (15, looks.CRITICAL)),
            decimals=1,
        ),
        number(
            Frame(
                title="Configurations refused",
                text="Configurations and web configs whose last read failed: the old one is in force, and the log"
                " names what is"
                " wrong.",
                width=4,
                height=4,
            ),
            Ask(
                expr=f"count({_CONFIG} == 0 or {_WEB_CONFIG} == 0) or count({_CONFIG}) * 0",
            ),
            unit="none",
            steps=looks.any_is_bad(),
            mapping=looks.words({"0": ("all in force", looks.GOOD)}),
        ),
        number(
            Frame(
                title="History on disk",
                text="Whether the store and the flight recorders can write. The watch goes on without. No data where"
                " store.path is null.",
                width=4,
                height=4,
            ),
            Ask(expr="min(batsignal_store_up and batsignal_recorder_up == 1 or batsignal_store_up * 0)"),
            unit="none",
            mapping=looks.words({"1": ("written", looks.GOOD), "0": ("NOT WRITTEN", looks.CRITICAL)}),
            says="none kept",
        ),
        rows(
            Frame(
                title="Daemons",
                text="Which version runs where, and when its configuration was read.",
                width=8,
                height=4,
            ),
            Ask(expr="max by (instance, version) (batsignal_build_info)"),
            Ask(expr="max by (instance) (batsignal_config_last_reload_success_timestamp_seconds) * 1000"),
            columns=(
                Column(field="instance", name="Daemon", width=190),
                Column(field="version", name="Version", width=90),
                Column(field="Value #B", name="Configuration read", unit="dateTimeFromNow"),
                Column(field="Value #A"),
            ),
            says="No daemon answers.",
        ),
    )


def _looks(board: Board) -> None:
    board.add(
        states(
            Frame(
                title="Looks that succeeded",
                text="Each poller's looks at each server; one that failed between two points shows.",
                width=12,
                height=7,
            ),
            Ask(expr=worst("batsignal_poll_success", "server", "poller", of="min"), legend="{{server}}: {{poller}}"),
            mapping=looks.SUCCESS,
        ),
        lines(
            Frame(
                title="How long a look takes",
                text="The longest look of each poller between two points. They go on side by side, and none may take"
                " a second.",
                width=12,
                height=7,
            ),
            Ask(expr=worst("batsignal_poll_duration_seconds", "server", "poller"), legend="{{server}}: {{poller}}"),
            unit="s",
        ),
        heading="Does it look?",
    )
    board.add(
        lines(
            Frame(
                title="Age of the last tick",
                text="Time since each server's last tick when Prometheus evaluated this: up to one scrape interval"
                " more than the"
                " daemon's own.",
                width=12,
                height=7,
            ),
            Ask(expr=f"time() - {each('batsignal_last_tick_timestamp_seconds', 'server')}", legend="{{server}}"),
            unit="s",
        ),
        lines(
            Frame(
                title="Ticks that a bug ended",
                text="It should be nought: the log has the traceback, and we would like to have it too.",
                width=12,
                height=7,
            ),
            Ask(
                expr=f"max by (server) (increase(batsignal_tick_errors_total{{{SERVER}}}[$__rate_interval]))",
                legend="{{server}}",
            ),
            unit="short",
            decimals=0,
        ),
    )


def _remembers(board: Board) -> None:
    board.add(
        lines(
            Frame(
                title="What history takes on disk",
                text="The store and the recordings beside it; all stays within some 2 GB. Absent where store.path is"
                " null.",
                width=12,
                height=7,
            ),
            Ask(expr="max by (instance, what) (batsignal_store_bytes)", legend=f"{_DAEMON}: {{{{what}}}}"),
            unit="bytes",
            stacked=True,
        ),
        lines(
            Frame(
                title="Writes that failed or were given up, files lost",
                text="Failed attempts are tried again; what was given up is lost; a file put aside was broken or"
                " foreign. All"
                " should be nought.",
                width=12,
                height=7,
            ),
            Ask(
                expr="max by (instance, what) (increase(batsignal_store_errors_total[$__rate_interval]))",
                legend=f"{_DAEMON}: failed, {{{{what}}}}",
            ),
            Ask(
                expr="max by (instance, what) (increase(batsignal_store_dropped_total[$__rate_interval]))",
                legend=f"{_DAEMON}: given up, {{{{what}}}}",
            ),
            Ask(
                expr="max by (instance) (increase(batsignal_store_put_aside_total[$__rate_interval]))",
                legend=f"{_DAEMON}: put aside",
            ),
            Ask(
                expr="max by (instance, what) (increase(batsignal_store_deleted_total[$__rate_interval]))",
                legend=f"{_DAEMON}: deleted, {{{{what}}}}",
            ),
            unit="short",
            decimals=0,
        ),
        heading="Does it remember?",
    )


def _costs(board: Board) -> None:
    costs = (
        ("Processor", "Share of one core.", "rate(process_cpu_seconds_total[$__rate_interval])", "percentunit"),
        ("Memory", "Resident memory of the daemon.", "process_resident_memory_bytes", "bytes"),
        ("Open files", "Files and sockets of the daemon; they should stand still.", "process_open_fds", "short"),
        ("Scrape", "How long Prometheus took to scrape the daemon.", "scrape_duration_seconds", "s"),
    )
    board.add(
        *(
            lines(
                Frame(title=title, text=text, width=6, height=7),
                Ask(expr=f"max by (instance) ({expr} {_OURS})", legend=_DAEMON),
                unit=unit,
            )
            for title, text, expr, unit in costs
        ),
        heading="What does it cost?",
    )
