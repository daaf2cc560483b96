"""What a command line may not say, whatever command it is of."""

import sys

import pytest
from typer.testing import CliRunner

from batsignal.cli import app, main


@pytest.mark.parametrize("empty", ["", " "])
@pytest.mark.parametrize(
    "command",
    [
        "run --config.file",
        "check --config.file",
        "run --web.config.file",
        "run --record",
        "replay",
        "drill leak --dsn",
        "drill leak --record",
        "report last --output",
    ],
)
def test_empty_path_or_connection_string_is_refused_as_what_it_is(command: str, empty: str) -> None:
    asked = CliRunner().invoke(app, [*command.split(), empty])
    assert asked.exit_code == 2
    named = command.rsplit(maxsplit=1)[-1] if "--" in command else "RECORDING"
    assert f"Invalid value for '{named}': expected a text that is not empty" in asked.output


def test_argument_with_escapes_in_it_leads_no_terminal_astray(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["batsignal", "replay", "no\x1b[2J\u202esuch"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert capsys.readouterr().err == "batsignal: no?[2J?such: cannot be read: No such file or directory\n"
