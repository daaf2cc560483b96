import pytest

from batsignal.poll.startup_error import SERVER_MESSAGE_CHARS_MAX, error_from_response, server_message
from batsignal.snapshot import PollFailure


def response(sqlstate: str, routine: str = "whoever", message: str = "said so") -> bytes:
    return f"SFATAL\0VFATAL\0C{sqlstate}\0M{message}\0Fx.c\0L1\0R{routine}\0\0".encode()


@pytest.mark.parametrize(
    ("routine", "reason"),
    [
        ("InitProcess", "slots_full"),
        ("ProcArrayAdd", "slots_full"),
        ("ProcessStartupPacket", "slots_full"),
        ("BackendInitialize", "slots_full"),
        ("InitPostgres", "slots_full"),
        ("InitializeSessionUserId", "role_limit"),
        ("CheckMyDatabase", "database_limit"),
        ("a routine of a later major", "slots_full"),
    ],
)
def test_routine_tells_the_kinds_of_full_apart(routine: str, reason: str) -> None:
    failure = error_from_response(response("53300", routine)).failure
    assert (failure.reason, failure.sqlstate) == (reason, "53300")


def test_totally_full_and_only_reserved_left_differ_in_words() -> None:
    all_gone = error_from_response(response("53300", "InitProcess", "sorry, too many clients already")).failure
    reserved = error_from_response(response("53300", "InitPostgres")).failure
    assert all_gone.text == "no slot is left, not even a superuser's (53300): sorry, too many clients already"
    assert reserved.text == "only reserved slots are left (53300): said so"


@pytest.mark.parametrize(
    ("sqlstate", "reason"),
    [
        ("57P03", "not_accepting"),
        ("3D000", "no_database"),
        ("55000", "no_database"),
        ("28P01", "auth_failed"),
        ("28000", "auth_failed"),
        ("42501", "auth_failed"),
        ("57P01", "unreachable"),
        ("53200", "unreachable"),
        ("XX000", "unreachable"),
    ],
)
def test_sqlstate_gives_the_reason_and_is_kept_in_the_text(sqlstate: str, reason: str) -> None:
    failure = error_from_response(response(sqlstate)).failure
    assert (failure.reason, failure.sqlstate) == (reason, sqlstate)
    assert f"({sqlstate}): said so" in failure.text


@pytest.mark.parametrize("body", [b"", b"\0\0", b"C\0Mx\0\0", b"C1\0\0", b"Cab;!x\0\0", b"\xff\xff\xff"])
def test_response_without_a_sqlstate_is_unreachable_and_has_none(body: bytes) -> None:
    failure = error_from_response(body).failure
    assert (failure.reason, failure.sqlstate) == ("unreachable", None)


def test_routine_decides_whatever_the_language_of_the_message() -> None:
    body = "SPATAL\0C53300\0Mzu viele Verbindungen für Rolle »web«\0RInitializeSessionUserId\0\0".encode()
    assert error_from_response(body).failure == PollFailure(
        reason="role_limit",
        sqlstate="53300",
        text="the role's own connection limit is reached (53300): zu viele Verbindungen für Rolle »web«",
    )


def test_message_in_another_encoding_is_read_with_replacements() -> None:
    failure = error_from_response("C3D000\0MDatenbank »x« fehlt\0\0".encode("latin-1")).failure
    assert failure.text.endswith("Datenbank �x� fehlt")


def test_message_becomes_one_short_printable_line() -> None:
    said = server_message("a\r\nb\tc\x1b]0;title\x07\N{RIGHT-TO-LEFT OVERRIDE}d\N{LINE SEPARATOR}e " + "x" * 999)
    assert said.startswith("a b c ]0;title d e xxx")
    assert said.isprintable()
    assert len(said) == SERVER_MESSAGE_CHARS_MAX


def test_secret_that_the_server_echoes_is_cut_out() -> None:
    failure = error_from_response(response("28P01", message='"hunter2" is wrong'), secret="hunter2").failure
    assert "hunter2" not in failure.text
