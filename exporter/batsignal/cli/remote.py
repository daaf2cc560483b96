"""The commands that speak to a running daemon: their arguments, which are the same for all of them.

Owns how they are spelled on the command line; what each does stands in a module of its own, imported late.
"""

from typing import Annotated, Optional

import typer

DEFAULT_URL = "http://127.0.0.1:9988"

deploys = typer.Typer(help="Tell a running daemon of deploys.", no_args_is_help=True, rich_markup_mode=None)


@deploys.command()
def mark(
    service: Annotated[str, typer.Argument(metavar="SERVICE", help="As the first part of its application_name.")],
    version: Annotated[str, typer.Argument(metavar="VERSION", help="As the second part of its application_name.")],
    at: Annotated[
        Optional[str],  # noqa: UP045 - typer reads the annotation at run time
        typer.Option("--at", metavar="TIME", help="When it began: Unix seconds or ISO 8601; without it, now."),
    ] = None,
    url: Annotated[
        str, typer.Option("--url", metavar="URL", envvar="BATSIGNAL_URL", help="The daemon's page.")
    ] = "http://127.0.0.1:9988",
    token: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            "--token",
            metavar="TOKEN",
            envvar="BATSIGNAL_TOKEN",
            help="The daemon's deploy token; others on this host can read it here, not in the variable.",
        ),
    ] = None,
) -> None:
    """Tell a running daemon that a version of a service begins to run."""
    from batsignal.cli.deploy import mark as mark_deploy  # noqa: PLC0415 - late on purpose

    raise typer.Exit(mark_deploy(service, version, at=at, url=url, token=token))


def add_to(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.add_typer(deploys, name="deploy")
