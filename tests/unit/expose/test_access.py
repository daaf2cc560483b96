"""The endpoint behind a web config: real certificates, real handshakes, real logins, over real sockets."""

import asyncio
import base64
import contextlib
import http.client
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bcrypt
import pytest

from batsignal import web_config
from batsignal.errors import ConfigError
from batsignal.expose import door, http1, passwords
from batsignal.expose.access import Access, TokenBucket
from batsignal.expose.deploys import Desk
from batsignal.expose.server import WebServer, build_app
from batsignal.web_watch import WebWatch

DEADLINE_SECONDS = 20
PASSWORD = "correct horse: bättery"
TOKEN = "deploy-token"


@dataclass
class Certificates:
    """A folder of PEM files: an authority, the server, a client of its, and a stranger."""

    folder: Path

    def path(self, name: str) -> str:
        return str(self.folder / name)

    def make(self, name: str, *, san: str, signed: bool = True) -> None:
        # openssl x509 -req, so that one authority signs several.
        key = [
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-keyout",
            self.path(f"{name}.key"),
        ]
        by = ["-CA", self.path("ca.crt"), "-CAkey", self.path("ca.key")] if signed else []
        command = ["openssl", "req", "-x509", *key, *by, "-days", "2", "-subj", f"/CN={name}", "-out"]
        extensions = ["-addext", f"subjectAltName={san}"]
        subprocess.run([*command, self.path(f"{name}.crt"), *extensions], check=True, capture_output=True)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    made = Certificates(tmp_path_factory.mktemp("certificates"))
    made.make("ca", san="DNS:ca", signed=False)
    made.make("server", san="DNS:localhost,IP:127.0.0.1")
    made.make("other", san="DNS:localhost,IP:127.0.0.1")
    made.make("prom", san="DNS:prom.example.com,IP:10.0.0.7,URI:spiffe://prom")
    made.make("stranger", san="DNS:prom.example.com", signed=False)
    return made


@dataclass
class Site:
    """A real server in a thread; `access` is what is in force."""

    access: Access
    server: WebServer
    address: tuple[str, int]
    thread: threading.Thread

    def ask(
        self, path: str = "/-/healthy", method: str = "GET", context: ssl.SSLContext | None = None, **headers: str
    ) -> tuple[int, dict[str, str], str]:
        connection = (
            http.client.HTTPConnection(*self.address, timeout=DEADLINE_SECONDS)
            if context is None
            else http.client.HTTPSConnection(*self.address, timeout=DEADLINE_SECONDS, context=context)
        )
        try:
            connection.request(method, path, headers=headers)
            answer = connection.getresponse()
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read().decode()
        finally:
            connection.close()

    def login(self, user: str, password: str, path: str = "/metrics") -> int:
        basic = base64.b64encode(f"{user}:{password}".encode()).decode()
        return self.ask(path, Authorization=f"Basic {basic}")[0]

    def stop(self) -> None:
        self.server.stop()
        self.thread.join(DEADLINE_SECONDS)
        assert not self.thread.is_alive()


@pytest.fixture
def open_site(boards: Any, clock: Callable[[], float], tmp_path: Path) -> Iterator[Callable[[str], Site]]:
    sites: list[Site] = []

    def build(text: str) -> Site:
        (tmp_path / "web.yml").write_text(text)
        access = Access.of(web_config.read(str(tmp_path / "web.yml")))
        app = build_app(
            board=boards.quiet,
            metrics=lambda _openmetrics, _zipped: b"x" * 3_000_000,
            reload=None,
            clock=clock,
            desk=Desk(mark=lambda deploy: (deploy, True), token=lambda: TOKEN),
        )
        sock = WebServer.bind("127.0.0.1:0")
        server = WebServer(app, sock, lambda: site.access)
        thread = threading.Thread(target=lambda: asyncio.run(server.serve()), daemon=True)
        site = Site(access, server, sock.getsockname()[:2], thread)
        thread.start()
        sites.append(site)
        return site

    yield build
    for site in sites:
        site.stop()


def tls(certificates: Certificates, more: str = "", name: str = "server") -> str:
    files = f"cert_file: {certificates.path(f'{name}.crt')}, key_file: {certificates.path(f'{name}.key')}"
    return f"tls_server_config: {{{files}{more}}}"


def clients(certificates: Certificates, kind: str, more: str = "") -> str:
    return tls(certificates, f", client_auth_type: {kind}, client_ca_file: {certificates.path('ca.crt')}{more}")


def client(certificates: Certificates, name: str | None = None, **options: Any) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=certificates.path("ca.crt"))
    if name is not None:
        context.load_cert_chain(certificates.path(f"{name}.crt"), certificates.path(f"{name}.key"))
    for option, value in options.items():
        setattr(context, option, value)
    return context


def served_name(site: Site, certificates: Certificates) -> str:
    with (
        socket.create_connection(site.address, timeout=DEADLINE_SECONDS) as plain,
        client(certificates).wrap_socket(plain, server_hostname="localhost") as encrypted,
    ):
        subject: Any = (encrypted.getpeercert() or {})["subject"]
        return str(dict(pair for names in subject for pair in names)["commonName"])


# -- TLS ---------------------------------------------------------------------------------------------------------------


def test_endpoint_speaks_tls_and_http1_also_to_who_prefers_http2(
    open_site: Callable[..., Site], certificates: Certificates
) -> None:
    context = client(certificates)
    context.set_alpn_protocols(["h2", "http/1.1"])
    site = open_site(tls(certificates))
    assert site.ask(context=context)[0] == 200
    assert len(site.ask("/metrics", context=context)[2]) == 3_000_000


def test_certificate_written_inline_will_do(open_site: Callable[..., Site], certificates: Certificates) -> None:
    cert, key = (Path(certificates.path(f"server.{kind}")).read_text() for kind in ("crt", "key"))
    indented = [text.replace("\n", "\n    ") for text in (cert, key)]
    site = open_site("tls_server_config:\n  cert: |\n    {}\n  key: |\n    {}\n".format(*indented))
    assert site.ask(context=client(certificates))[0] == 200


def test_plain_http_to_the_port_of_https_is_told_so(open_site: Callable[..., Site], certificates: Certificates) -> None:
    status, _, text = open_site(tls(certificates)).ask()
    assert (status, text) == (400, "HTTPS is spoken here: expected https://, got http://.\n")


@pytest.mark.parametrize(
    ("more", "options", "passes"),
    [
        ("", {"maximum_version": ssl.TLSVersion.TLSv1_2}, True),
        (", min_version: TLS13", {"maximum_version": ssl.TLSVersion.TLSv1_2}, False),
        (", max_version: TLS12", {"minimum_version": ssl.TLSVersion.TLSv1_3}, False),
        (
            ", cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]",
            {"maximum_version": ssl.TLSVersion.TLSv1_2},
            False,  # the certificate's key is an ECDSA one
        ),
        (
            ", cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256]",
            {"maximum_version": ssl.TLSVersion.TLSv1_2},
            True,
        ),
        (", cipher_suites: [TLS_AES_128_GCM_SHA256]", {"maximum_version": ssl.TLSVersion.TLSv1_2}, False),
        (", curve_preferences: [CurveP384, CurveP256]", {}, True),
    ],
)
def test_versions_and_suites_are_what_was_asked_for(
    open_site: Callable[..., Site], certificates: Certificates, more: str, options: dict[str, Any], passes: bool
) -> None:
    site, context = open_site(tls(certificates, more)), client(certificates, **options)
    if passes:
        assert site.ask(context=context)[0] == 200
    else:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            site.ask(context=context)


@pytest.mark.parametrize(
    ("kind", "welcome"),
    [
        ("NoClientCert", {None, "prom", "stranger"}),
        ("RequestClientCert", {None, "prom", "stranger"}),
        ("RequireAnyClientCert", {"prom"}),  # more strictly than the toolkit: it is verified
        ("VerifyClientCertIfGiven", {None, "prom"}),
        ("RequireAndVerifyClientCert", {"prom"}),
    ],
)
def test_client_certificate_is_wanted_as_the_policy_says(
    open_site: Callable[..., Site], certificates: Certificates, kind: str, welcome: set[str | None]
) -> None:
    rules = tls(certificates) if kind == "NoClientCert" else clients(certificates, kind)
    site = open_site(rules)
    for name in (None, "prom", "stranger"):
        if name in welcome:
            assert site.ask(context=client(certificates, name))[0] == 200, name
        else:
            with pytest.raises((OSError, http.client.HTTPException)):
                site.ask(context=client(certificates, name))


@pytest.mark.parametrize(
    ("names", "passes"),
    [
        ("prom.example.com", True),
        ("10.0.0.7", True),
        ("'spiffe://prom'", True),
        ("prom", False),
        ("example.com", False),
    ],
)
def test_certificate_must_carry_one_of_the_allowed_names(
    open_site: Callable[..., Site], certificates: Certificates, names: str, passes: bool
) -> None:
    site = open_site(clients(certificates, "RequireAndVerifyClientCert", f", client_allowed_sans: [x, {names}]"))
    if passes:
        assert site.ask(context=client(certificates, "prom"))[0] == 200
    else:
        with pytest.raises((OSError, http.client.HTTPException)):
            site.ask(context=client(certificates, "prom"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cert_file: {folder}/none, key_file: {folder}/server.key", "cert_file: expected a readable file"),
        ("cert_file: {folder}/server.key, key_file: {folder}/server.key", "cert_file: expected a certificate in PEM"),
        ("cert_file: {folder}/server.crt, key_file: {folder}/server.crt", "key_file: expected a private key in PEM"),
        (
            "cert_file: {folder}/server.crt, key_file: {folder}/other.key",
            "key_file: expected the key of the certificate, got another one",
        ),
        (
            "cert_file: {folder}/server.crt, key_file: {folder}/locked.key",
            "key_file: expected a certificate and its key, without a passphrase, in PEM",
        ),
        (
            (
                "cert_file: {folder}/server.crt, key_file: {folder}/server.key, client_ca_file: {folder}/server.key,"
                " client_auth_type: VerifyClientCertIfGiven"
            ),
            "client_ca_file: expected a certificate in PEM",
        ),
    ],
)
def test_certificate_that_cannot_be_used_is_refused_with_its_key(
    certificates: Certificates, tmp_path: Path, text: str, said: str
) -> None:
    lock = ["openssl", "ec", "-aes128", "-passout", "pass:x", "-in", certificates.path("server.key")]
    subprocess.run([*lock, "-out", certificates.path("locked.key")], check=True, capture_output=True)
    file = tmp_path / "web.yml"
    file.write_text(f"tls_server_config: {{{text.format(folder=certificates.folder)}}}")
    with pytest.raises(ConfigError) as caught:
        Access.of(web_config.read(str(file)))
    assert str(caught.value).startswith(f"{file}:1: tls_server_config.{said}")


def test_new_certificate_is_for_new_connections_and_the_old_ones_go_on(
    open_site: Callable[..., Site], certificates: Certificates, tmp_path: Path
) -> None:
    site = open_site(tls(certificates))
    kept = http.client.HTTPSConnection(*site.address, timeout=DEADLINE_SECONDS, context=client(certificates))
    kept.request("GET", "/-/healthy")
    assert kept.getresponse().read()
    assert served_name(site, certificates) == "server"
    (tmp_path / "web.yml").write_text(tls(certificates, name="other"))
    site.access = Access.of(web_config.read(str(tmp_path / "web.yml")), site.access)
    assert served_name(site, certificates) == "other"
    kept.request("GET", "/-/healthy")
    assert kept.getresponse().status == 200
    kept.close()


# -- what is read again ------------------------------------------------------------------------------------------------


def test_what_stands_still_after_a_change_is_in_force(certificates: Certificates, tmp_path: Path) -> None:
    for kind in ("crt", "key"):
        (tmp_path / f"server.{kind}").write_bytes(Path(certificates.path(f"server.{kind}")).read_bytes())
    file = tmp_path / "web.yml"
    file.write_text("tls_server_config: {cert_file: server.crt, key_file: server.key}")
    watch = WebWatch(str(file))
    first = watch.access
    assert not watch.check()
    assert not watch.check()

    def replace(kind: str) -> None:
        (tmp_path / "new").write_bytes(Path(certificates.path(f"other.{kind}")).read_bytes())
        (tmp_path / "new").replace(tmp_path / f"server.{kind}")

    replace("crt")
    assert not watch.check()  # the key is still to come
    replace("key")
    assert not watch.check()
    assert watch.check()
    assert (watch.error, watch.access is first) == (None, False)


def test_bad_change_keeps_what_was_and_says_so_until_it_is_mended(tmp_path: Path) -> None:
    file = tmp_path / "web.yml"
    file.write_text("")
    watch = WebWatch(str(file))
    first = watch.access
    file.write_text("tls_server_config: {cert_file: server.crt, key_file: server.key}")
    assert [watch.check(), watch.check()] == [False, True]
    assert "cert_file: expected a readable file" in str(watch.error)
    assert watch.access is first
    assert [watch.check(), watch.check()] == [False, False]
    file.write_text("{}\n")
    assert [watch.check(), watch.check()] == [False, True]
    assert watch.error is None


def test_fault_that_is_mended_in_a_certificate_is_seen(certificates: Certificates, tmp_path: Path) -> None:
    file = tmp_path / "web.yml"
    file.write_text("")
    watch = WebWatch(str(file))
    file.write_text("tls_server_config: {cert_file: server.crt, key_file: server.key}")
    assert watch.reload() is not None
    for kind in ("crt", "key"):
        (tmp_path / f"server.{kind}").write_bytes(Path(certificates.path(f"server.{kind}")).read_bytes())
    assert [watch.check(), watch.check()] == [False, True]
    assert watch.access.context is not None


def test_file_that_is_gone_keeps_what_was(tmp_path: Path) -> None:
    file = tmp_path / "web.yml"
    file.write_text("")
    watch = WebWatch(str(file))
    file.unlink()
    assert "cannot be read" in str(watch.reload())


# -- logins ------------------------------------------------------------------------------------------------------------


def users(cost: int = 5) -> str:
    return f"basic_auth_users: {{prom: {bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(cost)).decode()}}}"


PATHS = ["/", "/metrics", "/-/healthy", "/-/ready", "/-/reload", "/api/v1/status", "/api/v1/deploys", "/nothing"]


@pytest.mark.parametrize("path", PATHS)
def test_no_path_is_open_without_a_login(open_site: Callable[..., Site], path: str) -> None:
    site = open_site(users())
    status, headers, text = site.ask(path)
    assert (status, text) == (401, "A login is needed here (HTTP Basic).\n")
    assert headers["www-authenticate"].startswith("Basic ")
    assert site.login("prom", PASSWORD, path) != 401


@pytest.mark.parametrize(
    "authorization",
    [
        "Basic",
        "Basic ?",
        "Basic " + base64.b64encode(b"\xff:x").decode(),
        "Basic " + base64.b64encode(b"prom").decode(),
        "Basic " + base64.b64encode(b"prom:wrong").decode(),
        "Basic " + base64.b64encode(b"prom:" + b"x" * 100).decode(),
        "Basic " + base64.b64encode(b"prom:\0").decode(),
        "Basic " + base64.b64encode(f"nobody:{PASSWORD}".encode()).decode(),
        f"Bearer {TOKEN}",
        "Digest x",
    ],
)
def test_login_that_is_wrong_is_refused(open_site: Callable[..., Site], authorization: str) -> None:
    assert open_site(users()).ask("/metrics", Authorization=authorization)[0] == 401


def test_right_password_is_checked_once_and_remembered(
    open_site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[bytes] = []

    def check(password: bytes, known: bytes) -> bool:
        checked.append(password)
        return bcrypt.checkpw(password, known)

    monkeypatch.setattr(bcrypt, "checkpw", check)
    real = bcrypt.hashpw
    site = open_site(users())
    monkeypatch.setattr(bcrypt, "checkpw", lambda given, known: checked.append(given) or real(given, known) == known)
    assert [site.login("prom", PASSWORD) for _ in range(5)] == [200] * 5
    assert len(checked) == 1


def test_somebody_unknown_costs_what_somebody_known_does(monkeypatch: pytest.MonkeyPatch) -> None:
    salts: list[bytes] = []
    real = bcrypt.hashpw
    monkeypatch.setattr(bcrypt, "hashpw", lambda given, salt: salts.append(salt) or real(given, salt))
    known = passwords.Passwords({"prom": bcrypt.hashpw(b"x", bcrypt.gensalt(6)).decode()})
    salts.clear()
    assert asyncio.run(known.is_right("nobody", b"x")) is False
    assert [salt[:7] for salt in salts] == [b"$2b$06$"]


def test_guesses_do_not_push_out_what_is_right_and_are_bounded() -> None:
    known = passwords.Passwords({"prom": bcrypt.hashpw(b"x", bcrypt.gensalt(4)).decode()})

    async def scene() -> None:
        assert await known.is_right("prom", b"x")
        for number in range(passwords.REMEMBERED_MOST + 10):
            assert not await known.is_right("nobody", str(number).encode())

    asyncio.run(scene())
    assert len(known._answers) == passwords.REMEMBERED_MOST
    assert True in known._answers.values()


def test_crowd_of_guesses_is_sent_away_and_who_is_known_passes(
    open_site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    site = open_site(users())
    assert site.login("prom", PASSWORD) == 200
    gate = threading.Event()
    monkeypatch.setattr(bcrypt, "hashpw", lambda _given, salt: gate.wait(DEADLINE_SECONDS) and salt)
    answers: list[int] = []
    guessers = [
        threading.Thread(target=lambda n=number: answers.append(site.login(f"nobody{n}", "x")))
        for number in range(passwords.WAITING_MOST + 5)
    ]
    for guesser in guessers:
        guesser.start()
    end = time.monotonic() + DEADLINE_SECONDS
    while answers.count(503) < 5 and time.monotonic() < end:
        time.sleep(0.02)
    assert site.login("prom", PASSWORD) == 200
    gate.set()
    for guesser in guessers:
        guesser.join(DEADLINE_SECONDS)
    assert (answers.count(503), answers.count(401)) == (5, passwords.WAITING_MOST)


def test_deploy_is_told_with_its_token_alone(open_site: Callable[..., Site]) -> None:
    site = open_site(users())
    body = '{"service": "web", "version": "2"}'
    connection = http.client.HTTPConnection(*site.address, timeout=DEADLINE_SECONDS)
    statuses = []
    for authorization in (f"Bearer {TOKEN}", "Bearer wrong", "Bearer"):
        connection.request("POST", "/api/v1/deploys", body, {"Authorization": authorization})
        answer = connection.getresponse()
        statuses.append(answer.status)
        answer.read()
    connection.close()
    assert statuses == [201, 401, 401]
    assert site.ask("/api/v1/deploys", Authorization=f"Bearer {TOKEN}")[0] == 401


# -- headers and rate --------------------------------------------------------------------------------------------------


def test_headers_of_the_file_are_on_every_answer_in_place_of_ours(open_site: Callable[..., Site]) -> None:
    site = open_site(
        "http_server_config: {headers: {Content-Security-Policy: default-src 'none', X-Frame-Options: deny}}\n"
        + users()
    )
    for status, headers, _ in (site.ask("/"), site.ask("/nothing", Authorization="Basic cHJvbTp4")):
        assert status == 401
        assert headers["x-frame-options"] == "deny"
        assert headers["content-security-policy"] == "default-src 'none'"


def test_more_requests_than_the_rate_limit_are_sent_away(open_site: Callable[..., Site]) -> None:
    site = open_site("rate_limit: {interval: 1h, burst: 2}")
    assert [site.ask()[0] for _ in range(3)] == [200, 200, 429]


def test_bucket_fills_up_again_and_no_further_than_its_burst() -> None:
    now = 0.0
    bucket = TokenBucket(2.0, 2, monotonic=lambda: now)
    assert [bucket.take() for _ in range(3)] == [True, True, False]
    now = 2.0
    assert [bucket.take(), bucket.take()] == [True, False]
    now = 1000.0
    assert [bucket.take() for _ in range(3)] == [True, True, False]


# -- those who draw things out -----------------------------------------------------------------------------------------


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in (
        (door, "FIRST_BYTE_SECONDS"),
        (door, "HANDSHAKE_SECONDS"),
        (http1, "REQUEST_SECONDS"),
        (door, "READ_SECONDS"),
        (http1, "LINGER_SECONDS"),
    ):
        monkeypatch.setattr(module, name, 0.3)


def is_cut(sock: socket.socket) -> bool:
    """Whether the other end hangs up before the deadline, whatever it says before."""
    try:
        while sock.recv(65536):
            pass
    except ConnectionError:
        pass
    return True


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("first", [b"", b"GET", b"GET / HTTP/1.1\r\nHost: x\r\n"])
def test_request_that_does_not_come_is_cut(open_site: Callable[..., Site], first: bytes) -> None:
    with socket.create_connection(open_site("").address, timeout=DEADLINE_SECONDS) as slow:
        slow.sendall(first)
        assert is_cut(slow)


@pytest.mark.usefixtures("impatient")
def test_second_request_that_does_not_come_whole_is_cut(open_site: Callable[..., Site]) -> None:
    with socket.create_connection(open_site("").address, timeout=DEADLINE_SECONDS) as slow:
        slow.sendall(b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n")
        assert slow.recv(65536).startswith(b"HTTP/1.1 200")
        slow.sendall(b"GET /-/heal")
        assert is_cut(slow)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("first", [b"", b"\x16\x03\x01"])
def test_handshake_that_does_not_come_is_cut(
    open_site: Callable[..., Site], certificates: Certificates, first: bytes
) -> None:
    with socket.create_connection(open_site(tls(certificates)).address, timeout=DEADLINE_SECONDS) as slow:
        slow.sendall(first)
        assert is_cut(slow)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "tls"])
def test_answer_that_is_not_taken_is_cut(
    open_site: Callable[..., Site], certificates: Certificates, encrypted: bool
) -> None:
    site = open_site(tls(certificates) if encrypted else "")
    plain = socket.socket()
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    plain.settimeout(DEADLINE_SECONDS)
    plain.connect(site.address)
    reader = client(certificates).wrap_socket(plain, server_hostname="localhost") if encrypted else plain
    with reader:
        reader.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        seats = site.server._server._seats
        end = time.monotonic() + DEADLINE_SECONDS
        while len(seats) and time.monotonic() < end:
            time.sleep(0.02)
        assert len(seats) == 0


def test_body_that_nobody_asked_for_is_cut_after_the_answer(open_site: Callable[..., Site]) -> None:
    with socket.create_connection(open_site("").address, timeout=DEADLINE_SECONDS) as generous:
        generous.sendall(b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000000\r\n\r\n")
        assert generous.recv(100).startswith(b"HTTP/1.1 405")
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < 200_000_000:
                sent += generous.send(b"x" * 65536)
        assert sent < 100_000_000


def test_head_that_goes_on_and_on_is_refused(open_site: Callable[..., Site]) -> None:
    with socket.create_connection(open_site("").address, timeout=DEADLINE_SECONDS) as loud:
        loud.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n")
        try:
            for _ in range(1000):
                loud.sendall(b"X-A: " + b"a" * 1000 + b"\r\n")
        except ConnectionError:
            return
        assert loud.recv(100).startswith(b"HTTP/1.1 400") or is_cut(loud)


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "tls"])
def test_crowd_that_holds_its_connections_keeps_no_scraper_out(
    open_site: Callable[..., Site], certificates: Certificates, encrypted: bool
) -> None:
    site = open_site(tls(certificates) if encrypted else "")
    crowd = [socket.create_connection(site.address, timeout=DEADLINE_SECONDS) for _ in range(door.SEATS + 40)]
    try:
        for number, one in enumerate(crowd):
            if number % 2:
                try:
                    one.sendall(b"\x16\x03\x01" if encrypted else b"GET /metrics HTTP/1.1\r\nX: ")
                except ConnectionError:
                    continue
        assert site.ask("/metrics", context=client(certificates) if encrypted else None)[0] == 200
        assert len(site.server._server._seats) <= door.SEATS
    finally:
        for one in crowd:
            one.close()


@pytest.mark.parametrize("path", ["/", "/metrics", "/-/healthy", "/-/ready", "/api/v1/status", "/api/v1/signals"])
def test_head_answers_as_get_without_the_body(open_site: Callable[..., Site], path: str) -> None:
    site = open_site("")
    status, _, body = site.ask(path, "HEAD")
    assert (status, body) == (200, "")


@pytest.mark.parametrize("method", ["TRACE", "CONNECT", "PUT", "DELETE", "OPTIONS", "PATCH", "BREW"])
def test_other_methods_are_refused(open_site: Callable[..., Site], method: str) -> None:
    status, headers, text = open_site("").ask("/api/v1/status", method)
    assert status == 405
    assert "GET" in headers["allow"]
    assert text == f"{method} is not taken here, expected one of: GET, HEAD.\n"


def test_path_that_is_not_known_is_answered_in_a_line(open_site: Callable[..., Site]) -> None:
    status, _, text = open_site("").ask("/" + "x" * 5000)
    assert (status, len(text) < 200) == (404, True)


def test_scrapes_go_on_while_others_draw_out_all_that_can_be_drawn_out(open_site: Callable[..., Site]) -> None:
    site = open_site("")
    crowd = []
    for number in range(300):
        one = socket.create_connection(site.address, timeout=DEADLINE_SECONDS)
        one.setblocking(False)
        crowd.append(one)
        what = (
            b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 50,  # pipelined, and never read
            b"GET /api/v1/stream HTTP/1.1\r\nHost: x\r\n\r\n",
            b"POST /api/v1/deploys HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 60_000,
            b"GET /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nx",
            b"\x00\xff" * 1000,
            b"",
        )[number % 6]
        with contextlib.suppress(OSError):
            one.send(what)
    try:
        took = []
        for _ in range(20):
            before = time.monotonic()
            assert site.ask("/-/healthy")[0] == 200
            took.append(time.monotonic() - before)
        assert max(took) < 5
        assert len(site.server._server._seats) <= door.SEATS
    finally:
        for one in crowd:
            one.close()


class Line:
    """A transport of which only the end matters."""

    def __init__(self) -> None:
        self.aborted = False

    def abort(self) -> None:
        self.aborted = True


def test_newcomer_gets_the_seat_where_nothing_has_happened_for_longest_busy_or_not() -> None:
    now = 0.0
    seats = door.Seats(most=2, monotonic=lambda: now)
    lines: list[Any] = [Line() for _ in range(4)]
    stream, scraper = seats.take(lines[0]), seats.take(lines[1])
    seats.turn(stream, busy=True)
    now = 1.0
    seats.turn(scraper, busy=False)
    now = 2.0
    seats.take(lines[2])
    assert [line.aborted for line in lines] == [True, False, False, False]
    seats.take(lines[3])
    assert [line.aborted for line in lines] == [True, True, False, False]
    assert len(seats) == 2


def test_stop_ends_open_streams_without_an_error(
    open_site: Callable[..., Site], caplog: pytest.LogCaptureFixture
) -> None:
    site = open_site("")
    with socket.create_connection(site.address, timeout=DEADLINE_SECONDS) as listener:
        listener.sendall(b"GET /api/v1/stream HTTP/1.1\r\nHost: x\r\n\r\n")
        assert listener.recv(100).startswith(b"HTTP/1.1 200")
        site.stop()
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []
