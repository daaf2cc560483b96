"""The `batsignal` command: one module a command, and the only code that prints.

Imports are late: a daemon must not carry what only another command needs.
"""

import io
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Optional

import typer

from batsignal import __version__
from batsignal.cli import remote
from batsignal.cli.usage import PlainCommand, not_empty
from batsignal.errors import BatSignalError
from batsignal.names import legible

app = typer.Typer(
    name="batsignal",
    help="Who is eating the connections of a PostgreSQL server, since when, and what to undo.",
    epilog="Exit codes: 0 fine, 1 a finding, 2 usage or config error, 3 cannot reach what it needs.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


class LogLevel(StrEnum):
    """How much is logged."""

    debug = "debug"
    info = "info"
    warning = "warning"
    error = "error"


class LogFormat(StrEnum):
    """How a log line is spelled."""

    logfmt = "logfmt"
    json = "json"


ConfigFile = Annotated[
    Optional[str],  # noqa: UP045 - typer reads the annotation at run time
    typer.Option(
        "--config.file",
        metavar="FILE",
        callback=not_empty,
        help="YAML file; without it DATA_SOURCE_NAME or PG* name one server.",
    ),
]
ListenAddress = Annotated[
    Optional[str],  # noqa: UP045 - typer reads the annotation at run time
    typer.Option("--web.listen-address", metavar="HOST:PORT", help="Where to serve; overrides the config."),
]
WebConfigFile = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        "--web.config.file",
        metavar="FILE",
        callback=not_empty,
        help="TLS, client certificates and users of the endpoint, in the Prometheus exporter toolkit's format.",
    ),
]


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"batsignal {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    del version


@app.command()
def run(  # noqa: PLR0917 - typer makes options of them, nobody calls it by position
    config_file: ConfigFile = None,
    listen_address: ListenAddress = None,
    web_config_file: WebConfigFile = None,
    enable_lifecycle: Annotated[
        bool, typer.Option("--web.enable-lifecycle", help="Let POST /-/reload read the config again.")
    ] = False,
    record: Annotated[
        Optional[str],  # noqa: UP045 - typer reads the annotation at run time
        typer.Option(
            "--record",
            metavar="FILE",
            callback=not_empty,
            help="Record every look, for `batsignal replay`; .gz is gzipped, {server} the server's name.",
        ),
    ] = None,
    log_level: Annotated[LogLevel, typer.Option("--log.level")] = LogLevel.info,
    log_format: Annotated[LogFormat, typer.Option("--log.format")] = LogFormat.logfmt,
) -> None:
    """Watch the configured servers until told to stop."""
    from batsignal.cli.run import run as run_daemon  # noqa: PLC0415 - late on purpose

    run_daemon(
        config_file=config_file,
        listen_address=listen_address,
        web_config_file=web_config_file,
        enable_lifecycle=enable_lifecycle,
        record=record,
        log_level=log_level.value,
        log_format=log_format.value,
    )


@app.command(short_help="Will it work with this config, and what will it not see?")
def check(config_file: ConfigFile = None, web_config_file: WebConfigFile = None) -> None:
    """Say of the config, every server and every endpoint whether it will do, a line each; exit 1 on a finding."""
    from batsignal.cli.check import check as check_all  # noqa: PLC0415 - late on purpose

    raise typer.Exit(check_all(config_file, web_config_file))


class ReplayFormat(StrEnum):
    """How events are printed."""

    text = "text"
    json = "json"


@app.command(cls=PlainCommand, short_help="Run the detectors over a recording.")
def replay(
    recording: Annotated[
        str, typer.Argument(metavar="RECORDING", callback=not_empty, help="A recording, gzipped or not.")
    ],
    spelling: Annotated[ReplayFormat, typer.Option("--format", help="One line an event.")] = ReplayFormat.text,
) -> None:
    """Run the detectors over a recording and print what they say, in order of time."""
    from batsignal.cli.replay import replay as replay_recording  # noqa: PLC0415 - late on purpose

    raise typer.Exit(replay_recording(recording, spelling=spelling.value))


@app.command(short_help="Make an incident happen for real, and time the page.")
def drill(  # noqa: PLR0917 - as for `run`
    name: Annotated[
        Optional[str],  # noqa: UP045 - typer reads the annotation at run time
        typer.Argument(metavar="NAME", help="Which incident or piece of everyday life; --list shows all."),
    ] = None,
    dsn: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            "--dsn",
            metavar="DSN",
            callback=not_empty,
            help="A scratch server; without it an embedded one is started.",
        ),
    ] = None,
    rate: Annotated[Optional[float], typer.Option("--rate", metavar="R", help="Sessions per second.")] = None,  # noqa: UP045
    size: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option("--size", metavar="N", help="How many: sessions, pods, clients, by drill."),
    ] = None,
    duration_seconds: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option("--duration-seconds", metavar="S", help="How long, from the end of the calm."),
    ] = None,
    calm_seconds: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option("--calm-seconds", metavar="S", help="How long all is well before it begins."),
    ] = None,
    slots_share: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(
            "--slots-share",
            metavar="R",
            help="The share of the usable slots that the drill may take, 0 to 1 (0.5 with --dsn, else 1).",
        ),
    ] = None,
    i_know_what_i_do: Annotated[
        bool, typer.Option("--i-know-what-i-do", help="Play on a --dsn without a table batsignal_scratch.")
    ] = False,
    record: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            "--record",
            metavar="FILE",
            callback=not_empty,
            help="Let the drill's daemon record, for `batsignal replay`.",
        ),
    ] = None,
    no_daemon: Annotated[bool, typer.Option("--no-daemon", help="Make it happen, and time nobody's page.")] = False,
    url: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--url", metavar="URL", help="Time the page of a daemon that watches the --dsn already."),
    ] = None,
    wants_list: Annotated[bool, typer.Option("--list", help="List all drills and end.")] = False,
    spelling: Annotated[ReplayFormat, typer.Option("--format", help="A timeline, or JSON lines.")] = ReplayFormat.text,
) -> None:
    """Make an incident, or a piece of everyday life, happen for real on a scratch server and time the page.

    Exit 1: it was not named in time, or something wrong lit.
    """
    from batsignal.cli.drill import Wish  # noqa: PLC0415 - late on purpose
    from batsignal.cli.drill import run as run_drill  # noqa: PLC0415
    from batsignal.drills.act import Pace  # noqa: PLC0415

    wish = Wish(
        name=name,
        dsn=dsn,
        pace=Pace(rate_per_second=rate, size=size, duration_seconds=duration_seconds, calm_seconds=calm_seconds),
        slots_share=slots_share,
        may_be_unmarked=i_know_what_i_do,
        record=None if record is None else Path(record),
        with_daemon=not no_daemon,
        url=url,
        spelling=spelling.value,
    )
    raise typer.Exit(run_drill(wish, wants_list=wants_list))


@app.command(short_help="See a deploy go wrong, on a PostgreSQL started for it.")
def demo(
    incident: Annotated[
        str,
        typer.Option("--incident", metavar="KIND", help="Which incident to play; `batsignal drill --list` shows all."),
    ] = "leak",
    listen_address: ListenAddress = None,
    duration_seconds: Annotated[Optional[float], typer.Option("--duration-seconds", min=1, hidden=True)] = None,  # noqa: UP045
) -> None:
    """Start an embedded PostgreSQL, a small shop and the daemon, and let a deploy go wrong before your eyes."""
    from batsignal.cli.demo import run as play  # noqa: PLC0415 - late on purpose

    raise typer.Exit(play(incident=incident, listen_address=listen_address, duration_seconds=duration_seconds))


remote.add_to(app)

asset_commands = typer.Typer(
    help="The alert rules, runbooks and dashboards that ship with it.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(asset_commands, name="assets")


@asset_commands.command(cls=PlainCommand, short_help="Write alert rules, runbooks and dashboards into a folder.")
def export(
    directory: Annotated[str, typer.Argument(metavar="DIR", help="Where to; it is made when it is not there.")],
    force: Annotated[bool, typer.Option("--force", help="Overwrite files that are there with other content.")] = False,
) -> None:
    """Write the shipped alert rules, Alertmanager config, runbooks and dashboards into a folder, and name them."""
    from batsignal.cli.assets import export as export_assets  # noqa: PLC0415 - late on purpose

    raise typer.Exit(export_assets(directory, force=force))


def main() -> None:
    """Run the command line; an error of ours is one line on standard error and its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names from outside may hold anything
    try:
        app()
    except BatSignalError as exc:
        # What is quoted of an argument may hold anything; an error that lists what there is has lines of its own.
        said = "\n".join(legible(line) for line in str(exc).split("\n"))
        print(f"batsignal: {said}", file=sys.stderr)
        sys.exit(exc.exit_code)
