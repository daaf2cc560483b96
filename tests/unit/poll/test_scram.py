import pytest

from batsignal.poll.scram import ITERATIONS_MAX, ScramClient, ScramError, prepared_password

# The exchange printed in RFC 7677, section 3.
NONCE = "rOprNGfwEbeRWgbNEkqO"
SERVER_FIRST = b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
CLIENT_FINAL = (
    b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
)
SERVER_FINAL = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="


def begun() -> ScramClient:
    client = ScramClient("pencil", user="user", nonce=NONCE)
    client.first()
    return client


def test_exchange_of_the_rfc_is_spoken_to_the_letter() -> None:
    client = ScramClient("pencil", user="user", nonce=NONCE)
    assert client.first() == b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
    assert client.final(SERVER_FIRST) == CLIENT_FINAL
    client.verify(SERVER_FINAL)


def test_two_exchanges_use_two_nonces() -> None:
    assert ScramClient("pencil").first() != ScramClient("pencil").first()


@pytest.mark.parametrize("final", [b"v=AAAA", b"", b"e=invalid-proof", b"v=no base64!", b"\xff\xfe"])
def test_server_that_does_not_prove_itself_is_not_believed(final: bytes) -> None:
    client = begun()
    client.final(SERVER_FIRST)
    with pytest.raises(ScramError):
        client.verify(final)


def test_signature_before_the_exchange_is_not_believed() -> None:
    with pytest.raises(ScramError):
        begun().verify(b"v=")


@pytest.mark.parametrize(
    ("server_first", "complaint"),
    [
        (b"r=somebody-else,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096", "nonce"),
        (b"r=rOprNGfwEbeRWgbNEkqO,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096", "nonce"),
        (b"m=new,r=rOprNGfwEbeRWgbNEkqOx,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096", "extension"),
        (b"r=rOprNGfwEbeRWgbNEkqOx,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=0", "iterations"),
        (b"r=rOprNGfwEbeRWgbNEkqOx,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=-1", "iterations"),
        (b"r=rOprNGfwEbeRWgbNEkqOx,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=" + b"9" * 9000, "iterations"),
        (b"r=rOprNGfwEbeRWgbNEkqOx,s=W22ZaJ0SNY7soEsUEjb6gQ==", "iterations"),
        (b"r=rOprNGfwEbeRWgbNEkqOx,s=*,i=4096", "base64"),
        (b"", "nonce"),
        (b"\xff\x00,=,,r", "nonce"),
    ],
)
def test_server_first_message_that_makes_no_sense_is_an_error(server_first: bytes, complaint: str) -> None:
    with pytest.raises(ScramError, match=complaint):
        begun().final(server_first)


def test_iterations_beyond_what_a_deadline_bears_are_refused() -> None:
    client = begun()
    with pytest.raises(ScramError, match="more than"):
        client.final(b"r=rOprNGfwEbeRWgbNEkqOx,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=%d" % (ITERATIONS_MAX + 1))


@pytest.mark.parametrize(
    ("password", "prepared"),
    [
        ("plain ascii", b"plain ascii"),
        ("\N{FEMININE ORDINAL INDICATOR}", b"a"),
        ("\N{ROMAN NUMERAL NINE}", b"IX"),
        ("a\N{NO-BREAK SPACE}b", b"a b"),
        ("pa\N{SOFT HYPHEN}ss", b"pass"),
        ("u\N{COMBINING DIAERESIS}", "ü".encode()),
        # What SASLprep forbids goes out as it is: a deleted-by-mapping rest, a control character, mixed directions.
        ("\N{SOFT HYPHEN}", "\N{SOFT HYPHEN}".encode()),
        ("ü\x07", "ü\x07".encode()),
        ("\u06271", "\u06271".encode()),
        # Bytes from the environment that are no UTF-8.
        ("\udcff", b"\xff"),
    ],
)
def test_password_is_prepared_as_the_server_prepares_it(password: str, prepared: bytes) -> None:
    assert prepared_password(password) == prepared
