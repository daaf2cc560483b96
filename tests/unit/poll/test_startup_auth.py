import struct

import pytest

from batsignal.poll.startup_auth import Authenticator
from batsignal.poll.startup_error import RefusedError


def request(code: int, data: bytes = b"") -> bytes:
    return struct.pack("!I", code) + data


def test_trust_needs_no_answer() -> None:
    authenticator = Authenticator(user="web", password=None)
    assert authenticator.answer(request(0)) is None
    assert authenticator.done


def test_password_goes_out_in_clear_only_when_the_server_asks_for_that() -> None:
    in_clear = Authenticator(user="web", password="secret")
    assert in_clear.answer(request(3)) == b"p\0\0\0\x0bsecret\0"
    assert in_clear.password_shown
    hashed = Authenticator(user="web", password="secret")
    assert hashed.answer(request(5, b"1234")) == b"p\0\0\0\x28md5653072f971c666aa7de53f3c32e31b30\0"
    assert not hashed.password_shown


def test_scram_is_chosen_without_binding_beside_an_offer_of_binding() -> None:
    authenticator = Authenticator(user="web", password="secret")
    answer = authenticator.answer(request(10, b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0"))
    assert answer is not None
    assert answer[5:].startswith(b"SCRAM-SHA-256\0")
    assert b"n,,n=,r=" in answer


@pytest.mark.parametrize("asked", [request(3), request(5, b"1234"), request(10, b"SCRAM-SHA-256\0\0")])
@pytest.mark.parametrize("password", [None, ""])
def test_missing_password_is_said(asked: bytes, password: str | None) -> None:
    with pytest.raises(RefusedError) as refused:
        Authenticator(user="web", password=password).answer(asked)
    assert refused.value.failure.reason == "auth_failed"
    assert refused.value.failure.text == "the server asks for a password and none is configured"


@pytest.mark.parametrize(
    ("asked", "method"),
    [
        (request(7), "GSSAPI"),
        (request(9), "SSPI"),
        (request(10, b"OAUTHBEARER\0\0"), "OAUTHBEARER"),
        (request(10, b"SCRAM-SHA-256-PLUS\0\0"), "SCRAM-SHA-256-PLUS"),
        (request(10), "SASL without a mechanism"),
    ],
)
def test_method_that_we_do_not_speak_is_named(asked: bytes, method: str) -> None:
    with pytest.raises(RefusedError) as refused:
        Authenticator(user="web", password="secret").answer(asked)
    assert refused.value.failure.reason == "auth_failed"
    assert refused.value.failure.text == f"the server asks for {method}, which this check cannot answer"


@pytest.mark.parametrize("asked", [b"", b"\0\0", request(99), request(5, b"12"), request(11, b"r=x"), request(12)])
def test_request_that_makes_no_sense_is_not_postgresql(asked: bytes) -> None:
    with pytest.raises(RefusedError) as refused:
        Authenticator(user="web", password="secret").answer(asked)
    assert refused.value.failure.reason == "unreachable"


def test_server_that_leaves_scram_half_done_is_not_believed() -> None:
    authenticator = Authenticator(user="web", password="secret")
    authenticator.answer(request(10, b"SCRAM-SHA-256\0\0"))
    with pytest.raises(RefusedError, match="did not prove"):
        authenticator.answer(request(0))
    assert not authenticator.done
