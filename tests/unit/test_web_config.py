"""The web config: what it takes, and the exact words for what it does not."""

from pathlib import Path

import pytest

from batsignal import web_config
from batsignal.errors import ConfigError

HASH = "$2y$10$X0h1gDsPszWURQaxFh.zoubFi6DXncSjhoQNJgRrnGs7EsimhC7zG"
TLS = "tls_server_config: {cert_file: a.crt, key_file: a.key, "


def read(folder: Path, text: str) -> web_config.WebRules:
    file = folder / "web.yml"
    file.write_text(text)
    return web_config.read(str(file))


def refused(folder: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read(folder, text)
    said = str(caught.value)
    assert "\n" not in said
    return said.removeprefix(f"{folder / 'web.yml'}:1: ")


@pytest.mark.parametrize("text", ["", "{}", "tls_server_config:", "tls_server_config: {}", "basic_auth_users: {}"])
def test_file_that_asks_for_nothing_is_plain_http_for_everybody(tmp_path: Path, text: str) -> None:
    rules = read(tmp_path, text)
    assert (rules.tls, rules.users, rules.headers) == (None, {}, {})


def test_every_key_of_the_toolkit_is_known(tmp_path: Path) -> None:
    rules = read(
        tmp_path,
        f"""
tls_server_config:
  cert_file: tls/server.crt
  key_file: /etc/ssl/server.key
  client_auth_type: RequireAndVerifyClientCert
  client_ca_file: ca.crt
  client_allowed_sans: [prom.example.com, 10.0.0.1]
  min_version: TLS12
  max_version: TLS13
  cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, TLS_AES_128_GCM_SHA256]
  prefer_server_cipher_suites: false
  curve_preferences: [CurveP256, X25519]
http_server_config:
  http2: true
  headers: {{Strict-Transport-Security: max-age=1, X-Frame-Options: deny, X-XSS-Protection: ''}}
basic_auth_users:
  prom: {HASH}
  7: {HASH}
rate_limit: {{interval: 1m30s, burst: 5}}
""",
    )
    assert rules.tls is not None
    assert rules.files == (
        str(tmp_path / "web.yml"),
        str(tmp_path / "tls/server.crt"),
        "/etc/ssl/server.key",
        str(tmp_path / "ca.crt"),
    )
    assert rules.users == {"prom": HASH, "7": HASH}
    assert rules.headers == {"Strict-Transport-Security": "max-age=1", "X-Frame-Options": "deny"}
    assert rules.whole.rate_limit is not None
    assert rules.whole.rate_limit.interval == 90


@pytest.mark.parametrize(
    ("spelled", "seconds"), [("0", 0), ("500ms", 0.5), ("1s", 1), ("2h", 7200), ("1.5s", 1.5), ("1m", 60)]
)
def test_duration_is_spelled_as_in_go(tmp_path: Path, spelled: str, seconds: float) -> None:
    limit = read(tmp_path, f"rate_limit: {{interval: {spelled}, burst: 1}}").whole.rate_limit
    assert limit is not None
    assert limit.interval == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[]", "expected a mapping with tls_server_config or basic_auth_users, got an empty list"),
        ("tls_config: {}", "tls_config: unknown key; expected tls_server_config (did you mean that?)"),
        ("tls_server_config: {cert: [1]}", "tls_server_config.cert: expected a text in PEM, got a list"),
        ("tls_server_config: x", "tls_server_config: expected a mapping with cert_file and key_file, got 'x'"),
        ("tls_server_config: {cert_file: a}", "tls_server_config.key_file: missing; expected key or key_file"),
        ("tls_server_config: {key_file: a}", "tls_server_config.cert_file: missing; expected cert or cert_file"),
        (TLS + "cert: x}", "tls_server_config.cert_file: expected either cert or cert_file, got both"),
        (TLS + "certfile: x}", "tls_server_config.certfile: unknown key; expected cert_file (did you mean that?)"),
        (
            TLS + "min_version: TLS1.2}",
            "tls_server_config.min_version: expected TLS10 or TLS11 or TLS12 or TLS13, got 'TLS1.2'",
        ),
        (
            TLS + "min_version: TLS13, max_version: TLS12}",
            "tls_server_config.max_version: expected TLS13 (the min_version) or later, got TLS12",
        ),
        (
            TLS + "curve_preferences: [P256]}",
            "tls_server_config.curve_preferences: expected some of CurveP256, CurveP384, CurveP521, X25519, got 'P256'",
        ),
        (
            TLS + "client_auth_type: Require}",
            (
                "tls_server_config.client_auth_type: expected one of NoClientCert, RequestClientCert,"
                " RequireAnyClientCert,"
                " VerifyClientCertIfGiven, RequireAndVerifyClientCert, got 'Require'"
            ),
        ),
        (
            TLS + "client_auth_type: RequireAndVerifyClientCert}",
            (
                "tls_server_config.client_ca_file: missing; expected client_ca or client_ca_file for"
                " RequireAndVerifyClientCert"
            ),
        ),
        (
            TLS + "client_auth_type: RequireAnyClientCert}",
            (
                "tls_server_config.client_auth_type: expected RequireAndVerifyClientCert with client_ca_file:"
                " a certificate"
                " that nobody verifies (RequireAnyClientCert) proves nothing, and cannot be asked for here"
            ),
        ),
        (
            TLS + "client_ca_file: ca}",
            (
                "tls_server_config.client_auth_type: expected RequireAndVerifyClientCert where client_ca_file is given,"
                " got NoClientCert"
            ),
        ),
        (
            TLS + "client_allowed_sans: [a], client_auth_type: VerifyClientCertIfGiven, client_ca_file: ca}",
            (
                "tls_server_config.client_allowed_sans: expected with client_auth_type RequireAndVerifyClientCert, got"
                " VerifyClientCertIfGiven"
            ),
        ),
        (
            "http_server_config: {headers: {X-Frame-Options: allow}}",
            "http_server_config.headers.X-Frame-Options: expected deny or sameorigin, got 'allow'",
        ),
        (
            "http_server_config: {headers: {Server: x}}",
            (
                "http_server_config.headers.'Server': unknown key; expected one of Content-Security-Policy,"
                " X-Frame-Options, X-Content-Type-Options, X-XSS-Protection, Strict-Transport-Security"
            ),
        ),
        (
            'http_server_config: {headers: {X-XSS-Protection: "1\\r\\nSet-Cookie: a"}}',
            "http_server_config.headers.X-XSS-Protection: expected printable ASCII, got '1\\r\\nSet-Cookie: a'",
        ),
        ("http_server_config: {http2: maybe}", "http_server_config.http2: expected true or false, got 'maybe'"),
        (
            "basic_auth_users: {prom: hunter2}",
            "basic_auth_users.'prom': expected a bcrypt hash ($2y$10$..., as of htpasswd -nBC 10 '')",
        ),
        *(
            (
                f"basic_auth_users: {{prom: {value}}}",
                "basic_auth_users.'prom': expected a bcrypt hash ($2y$10$..., as of htpasswd -nBC 10 '')",
            )
            for value in ("", "123456", "1.5")
        ),
        (
            f"basic_auth_users: {{prom: {HASH.replace('$10$', '$40$')}}}",
            "basic_auth_users.'prom': expected a bcrypt hash ($2y$10$..., as of htpasswd -nBC 10 '')",
        ),
        (
            "basic_auth_users: [prom]",
            "basic_auth_users: expected a mapping of users and their bcrypt hashes, got a list",
        ),
        (
            "rate_limit: {interval: soon}",
            "rate_limit.interval: expected a duration such as 500ms, 1s or 1m30s, got 'soon'",
        ),
        (
            "rate_limit: {interval: 1s}",
            "rate_limit.burst: expected at least 1 where interval is given: no request would pass",
        ),
    ],
)
def test_what_cannot_be_is_refused_with_its_key_and_what_was_expected(tmp_path: Path, text: str, said: str) -> None:
    assert refused(tmp_path, text) == said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("# one\nrate_limit:\n  interval: soon", ":3: rate_limit.interval: "),
        ("rate_limit:\n  interval: 1s", ":1: rate_limit.burst: "),
        ("http_server_config:\n  headers:\n    X-Frame-Options: x", ":3: http_server_config.headers.X-Frame-Options: "),
        ("http_server_config:\n  headers:\n    Server: x", ":3: http_server_config.headers.'Server': "),
        (f"basic_auth_users:\n  a: {HASH}\n  b: x", ":3: basic_auth_users.'b': "),
        (
            "tls_server_config:\n  cert_file: a\n  key_file: b\n  max_version: TLS11",
            ":4: tls_server_config.max_version: ",
        ),
        ("tls_server_config:\n  cert_file: a\n  colour: b", ":3: tls_server_config.colour: "),
    ],
)
def test_what_is_refused_is_named_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "web.yml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        web_config.read(str(file))
    assert str(caught.value).startswith(f"{file}{said}")


@pytest.mark.parametrize(
    "text",
    [
        "basic_auth_users: {prom: hunter2-secret}",
        "basic_auth_users: {prom: [hunter2-secret]}",
        "tls_server_config: {cert: x, key: hunter2-secret, key_file: y}",
        "tls_server_config: {cert: x, key: {hunter2-secret: 1}}",
    ],
)
def test_secret_is_in_no_refusal(tmp_path: Path, text: str) -> None:
    assert "hunter2" not in refused(tmp_path, text)


def test_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yml: cannot be read: No such file or directory"):
        web_config.read(str(tmp_path / "nowhere.yml"))
