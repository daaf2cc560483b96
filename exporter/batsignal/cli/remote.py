"""The commands that speak to a running daemon: their arguments, which are the same for all of them.

Owns how they are spelled on the command line; what each does stands in a module of its own, imported late.
"""

from enum import StrEnum
from typing import Annotated, Optional

import typer

from batsignal.cli.usage import PlainCommand, not_empty

DEFAULT_URL = "http://127.0.0.1:9988"

Url = Annotated[str, typer.Option("--url", metavar="URL", envvar="BATSIGNAL_URL", help="The daemon's page.")]
Token = Annotated[
    Optional[str],  # noqa: UP045 - typer reads the annotation at run time
    typer.Option(
        "--token",
        metavar="TOKEN",
        envvar="BATSIGNAL_TOKEN",
        help="What the daemon asks for; others on this host can read it here, not in the variable.",
    ),
]
Text = Optional[str]  # noqa: UP045


class Spelling(StrEnum):
    """How an answer is printed."""

    text = "text"
    json = "json"


deploys = typer.Typer(
    help="Tell a running daemon of deploys, and check them.", no_args_is_help=True, rich_markup_mode=None
)


@deploys.command(cls=PlainCommand)
def mark(
    service: Annotated[str, typer.Argument(metavar="SERVICE", help="As the first part of its application_name.")],
    version: Annotated[str, typer.Argument(metavar="VERSION", help="As the second part of its application_name.")],
    at: Annotated[
        Text,
        typer.Option("--at", metavar="TIME", help="When it began: Unix seconds or ISO 8601; without it, now."),
    ] = None,
    url: Url = DEFAULT_URL,
    token: Token = None,
) -> None:
    """Tell a running daemon that a version of a service begins to run."""
    from batsignal.cli.deploy import mark as mark_deploy  # noqa: PLC0415 - late on purpose

    raise typer.Exit(mark_deploy(service, version, at=at, url=url, token=token))


@deploys.command(cls=PlainCommand)
def verify(
    service: Annotated[str, typer.Argument(metavar="SERVICE", help="As the first part of its application_name.")],
    version: Annotated[str, typer.Argument(metavar="VERSION", help="As the second part of its application_name.")],
    window_seconds: Annotated[
        float,
        typer.Option("--window-seconds", metavar="N", min=0, max=86_400, help="How long after the deploy to judge it."),
    ] = 120.0,
    spelling: Annotated[Spelling, typer.Option("--format", help="A line a check, or JSON.")] = Spelling.text,
    url: Url = DEFAULT_URL,
) -> None:
    """Check a deploy until its window is over, or something is bad. Exit 1: roll it back; 3: it cannot be seen."""
    from batsignal.cli.verify import gate  # noqa: PLC0415 - late on purpose

    raise typer.Exit(gate(service, version, window_seconds=window_seconds, url=url, spelling=spelling.value))


def release(  # noqa: PLR0917 - typer makes options of them, nobody calls it by position
    application: Annotated[
        Text, typer.Option("--application", metavar="NAME", help="A service, or a whole application_name.")
    ] = None,
    version: Annotated[Text, typer.Option("--version", metavar="V", help="Only this version of it.")] = None,
    user: Annotated[Text, typer.Option("--user", metavar="U", help="Only sessions of this role.")] = None,
    client: Annotated[
        Text,
        typer.Option("--client", metavar="ADDR", help="Only from this address; `local`: by no address."),
    ] = None,
    database: Annotated[Text, typer.Option("--database", metavar="D", help="Only in this database.")] = None,
    server: Annotated[
        Text, typer.Option("--server", metavar="S", help="Which of the daemon's servers; needed when it has several.")
    ] = None,
    state: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            "--state", metavar="STATE", help="Only in this state; repeatable. Default: idle, in transaction or not."
        ),
    ] = None,
    idle_longer_seconds: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(
            "--idle-longer-seconds", metavar="N", min=0, help="Only if not used for longer than this (default: 1)."
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without, only say what would end.")] = False,
    url: Url = DEFAULT_URL,
    token: Token = None,
    spelling: Annotated[Spelling, typer.Option("--format", help="A table, or the daemon's JSON.")] = Spelling.text,
) -> None:
    """End the sessions that a culprit holds; a dry run without --yes. Exit 1: something stood in the way."""
    from batsignal.cli.release import Wish  # noqa: PLC0415 - late on purpose
    from batsignal.cli.release import release as release_sessions  # noqa: PLC0415

    wish = Wish(
        server=server,
        application=application,
        version=version,
        user=user,
        client=client,
        database=database,
        states=tuple(state or ()),
        idle_longer_seconds=idle_longer_seconds,
        for_real=yes,
    )
    raise typer.Exit(release_sessions(wish, url=url, token=token, spelling=spelling.value))


def report(
    incident: Annotated[
        str, typer.Argument(metavar="INCIDENT", help="Its id, or how that begins; `last` for the last one.")
    ],
    output: Annotated[
        Text,
        typer.Option("--output", metavar="FILE", callback=not_empty, help="Where to write it; without, it is printed."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite FILE when it is there already.")] = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Draft the post-mortem of an incident in Markdown, from what a running daemon has kept of it."""
    from batsignal.cli.report import report as write_report  # noqa: PLC0415 - late on purpose

    raise typer.Exit(write_report(incident, output=output, force=force, url=url))


def add_to(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.add_typer(deploys, name="deploy")
    app.command()(release)
    app.command(cls=PlainCommand, short_help="Draft the post-mortem of an incident.")(report)
