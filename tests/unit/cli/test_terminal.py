import io
import os

import pytest

from batsignal.cli.terminal import Terminal


class Stream(io.TextIOWrapper):
    def __init__(self, encoding: str, *, tty: bool) -> None:
        self.bytes = io.BytesIO()
        super().__init__(self.bytes, encoding=encoding)
        self._tty = tty

    def isatty(self) -> bool:
        return self._tty


def test_a_pipe_gets_plain_lines() -> None:
    stream = Stream("utf-8", tty=False)
    Terminal(stream).say("lit", "alarm")
    assert stream.bytes.getvalue() == b"lit\n"


def test_a_terminal_gets_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    stream = Stream("utf-8", tty=True)
    Terminal(stream).say("lit", "alarm")
    assert stream.bytes.getvalue() == b"\x1b[1;31mlit\x1b[0m\n"


def test_with_standard_output_closed_from_the_start_nobody_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", None)
    terminal = Terminal()
    terminal.say("lit", "alarm")
    assert terminal.gone
    assert not terminal.draws


def test_no_color_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    stream = Stream("utf-8", tty=True)
    Terminal(stream).say("lit", "alarm")
    assert stream.bytes.getvalue() == b"lit\n"


def test_characters_a_terminal_does_not_know_are_replaced() -> None:
    stream = Stream("ascii", tty=False)
    terminal = Terminal(stream)
    terminal.say("café")
    assert stream.bytes.getvalue() == b"caf?\n"
    assert not terminal.draws


def test_a_reader_who_goes_away_is_noticed_and_never_raises() -> None:
    reader, writer = os.pipe()
    with os.fdopen(writer, "w", encoding="utf-8") as stream:
        terminal = Terminal(stream)
        terminal.say("first")
        os.close(reader)
        terminal.say("second")
        assert terminal.gone
        terminal.say("third")
