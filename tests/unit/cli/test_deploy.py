"""`batsignal deploy mark` against something that answers as a daemon does, or does not."""

import json
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from batsignal.cli import app
from batsignal.cli.deploy import mark, read_instant
from batsignal.errors import BatSignalError, ConfigError, UnreachableError

KNOWN = {"service": "web", "version": "2.4.0", "at": 1_760_000_000.0}


class Fake:
    """Answers each POST with `status` and `body`, and remembers what was asked."""

    def __init__(self) -> None:
        self.status, self.body = 201, json.dumps({"deploy": KNOWN, "known_already": False})
        self.asked: list[tuple[str, str | None, Any]] = []
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers["Content-Length"]))
                fake.asked.append((self.path, self.headers["Authorization"], json.loads(content)))
                self.send_response(fake.status)
                self.end_headers()
                self.wfile.write(fake.body.encode())

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def speak_tls(self, folder: Path) -> None:
        """Speak TLS from now on, with a certificate of its own in `folder`."""
        key, certificate = folder / "key.pem", folder / "certificate.pem"
        request = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost"
        names = ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)]
        subprocess.run([*request.split(), *names], check=True, capture_output=True)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.url = f"https://localhost:{self.server.server_port}"


@pytest.fixture
def fake() -> Iterator[Fake]:
    one = Fake()
    yield one
    one.server.shutdown()
    one.server.server_close()


def test_a_deploy_is_told_and_what_the_daemon_knows_is_printed(fake: Fake, capsys: Any) -> None:
    assert mark("web", "2.4.0", at=None, url=f"{fake.url}/bat/", token="s3cret") == 0
    assert fake.asked == [("/bat/api/v1/deploys", "Bearer s3cret", {"service": "web", "version": "2.4.0"})]
    assert capsys.readouterr().out == "web 2.4.0 is marked, at 2025-10-09 08:53:20 UTC\n"


def test_of_a_deploy_of_today_the_time_is_enough(fake: Fake, capsys: Any) -> None:
    assert mark("web", "2.4.0", at=None, url=fake.url, token="s3cret", clock=lambda: KNOWN["at"] + 60) == 0
    assert capsys.readouterr().out == "web 2.4.0 is marked, at 08:53:20 UTC\n"


@pytest.mark.parametrize(
    "command", ["deploy mark", "deploy verify", "replay", "report", "assets export", "drill", "release"]
)
def test_what_must_be_given_stands_in_the_usage_without_braces(command: str) -> None:
    asked = CliRunner().invoke(app, [*command.split(), "--help"])
    usage = asked.stdout.partition("\n\n")[0]
    assert asked.exit_code == 0
    assert usage.startswith("Usage: ")
    assert "{" not in usage
    assert command != "deploy mark" or usage.endswith("SERVICE VERSION")


def test_one_that_is_known_already_is_no_error(fake: Fake, capsys: Any) -> None:
    fake.status, fake.body = 200, json.dumps({"deploy": KNOWN, "known_already": True})
    assert mark("web", "2.4.0", at="1760000000", url=fake.url, token="s3cret") == 0
    assert fake.asked[0][2]["at"] == 1_760_000_000.0
    assert "was known already" in capsys.readouterr().out


def test_a_daemon_behind_tls_is_told_only_when_its_certificate_is_one_to_trust(
    fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.speak_tls(tmp_path)
    with pytest.raises(UnreachableError, match=r"certificate verify failed.*; BATSIGNAL_CA names"):
        mark("web", "2.4.0", at=None, url=fake.url, token="s3cret")
    assert not fake.asked
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
    assert mark("web", "2.4.0", at=None, url=fake.url, token="s3cret") == 0
    assert len(fake.asked) == 1


@pytest.mark.parametrize("status", [400, 401, 403, 413])
def test_what_the_daemon_refuses_is_a_usage_error_in_its_words(fake: Fake, status: int) -> None:
    fake.status, fake.body = status, json.dumps({"error": "at: expected Unix seconds"})
    with pytest.raises(ConfigError, match="refuses: at: expected Unix seconds") as caught:
        mark("web", "2", at=None, url=fake.url, token="s3cret")
    assert caught.value.exit_code == 2
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, '{"error": "x"}'),
        (404, "<html>"),
        (200, "[]"),
        (200, '{"deploy": {"service": 1}, "known_already": true}'),
        (200, '{"deploy": {"service": "a", "version": "1", "at": 1e300}, "known_already": true}'),
        (200, "[" * 100_000),
        (302, ""),
        (200, "\xff"),
    ],
)
def test_what_is_no_such_daemon_is_unreachable(fake: Fake, status: int, body: str) -> None:
    fake.status, fake.body = status, body
    with pytest.raises(UnreachableError, match=f"answered with status {status}") as caught:
        mark("web", "2", at=None, url=fake.url, token="s3cret")
    assert caught.value.exit_code == 3


def test_what_stands_before_a_daemon_is_heard_when_it_says_a_sentence(fake: Fake) -> None:
    fake.status, fake.body = 400, "HTTPS is spoken here: expected https://, got http://.\n"
    with pytest.raises(UnreachableError, match="status 400: HTTPS is spoken here: expected https://"):
        mark("web", "2", at=None, url=fake.url, token="s3cret")


def test_a_daemon_that_wants_a_login_is_said_to_want_one(fake: Fake) -> None:
    fake.status, fake.body = 401, "A login is needed here (HTTP Basic).\n"
    with pytest.raises(ConfigError, match="wants a login: expected https://USER:PASSWORD@HOST:PORT"):
        mark("web", "2", at=None, url=fake.url, token="s3cret")


def test_no_daemon_is_said_with_where_it_was_looked_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(
        UnreachableError, match=f"no answer from the daemon at {address}: Connection refused; is .batsignal run."
    ):
        mark("web", "2", at=None, url=f"http://{address}", token="s3cret")


def test_http_at_a_port_of_https_is_unreachable(fake: Fake) -> None:
    with pytest.raises(UnreachableError, match=r"no answer from the daemon.*; is it https:// that is spoken there"):
        mark("web", "2", at=None, url=fake.url.replace("http:", "https:"), token="s3cret")


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"token": None}, "BATSIGNAL_TOKEN"),
        ({"token": ""}, "BATSIGNAL_TOKEN"),
        ({"token": "with\nnewline"}, "--token"),
        ({"url": "127.0.0.1:9988"}, "--url"),
        ({"url": "ftp://127.0.0.1"}, "--url"),
        ({"at": "yesterday"}, "--at"),
        ({"at": "nan"}, "--at"),
        ({"at": "2026-13-01"}, "--at"),
    ],
)
def test_what_cannot_be_told_is_a_usage_error_and_nothing_is_sent(fake: Fake, given: Any, error: str) -> None:
    with pytest.raises(BatSignalError, match=error) as caught:
        mark("web", "2", **({"at": None, "url": fake.url, "token": "s3cret"} | given))
    assert caught.value.exit_code == 2
    assert not fake.asked


@pytest.mark.parametrize("text", ["1760000000", "2025-10-09T08:53:20", "2025-10-09T08:53:20+00:00"])
def test_an_instant_without_a_zone_is_utc(text: str) -> None:
    assert read_instant(text) == 1_760_000_000.0
