"""A daemon behind TLS and a login, as a process: what its clients, its commands and its operator meet."""

import base64
import json
import os
import signal
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bcrypt
import pytest
import yaml

from batsignal import web_config
from batsignal.drills.embedded import EmbeddedServer
from batsignal.errors import ConfigError
from batsignal.expose.access import Access
from paging import free_port

PASSWORD = "pa:ss w@rd"
TOKEN = "deploy-t0ken"
COMMAND = (sys.executable, "-m", "batsignal")

Until = Callable[..., Any]


def certify(folder: Path, name: str) -> None:
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", f"{name}.key"]
    subject = ["-subj", f"/CN={name}", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", *key, "-days", "2", *subject, "-out", f"{name}.crt"]
    subprocess.run(command, check=True, capture_output=True, cwd=folder)


def write_web(folder: Path, name: str, password: str) -> None:
    hashed = bcrypt.hashpw(password.encode(), bcrypt.gensalt(5)).decode()
    rules = {
        "tls_server_config": {"cert_file": f"{name}.crt", "key_file": f"{name}.key"},
        "basic_auth_users": {"prom": hashed},
    }
    (folder / "new.yml").write_text(yaml.safe_dump(rules))
    (folder / "new.yml").replace(folder / "web.yml")


@dataclass
class Guarded:
    """A running daemon, and a way to ask it."""

    folder: Path
    process: subprocess.Popen[bytes]
    trusted: str = "first"
    password: str = PASSWORD

    @property
    def log(self) -> list[dict[str, Any]]:
        text = (self.folder / "log").read_text()
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def said(self, event: str) -> list[dict[str, Any]]:
        return [line for line in self.log if line["event"] == event]

    @property
    def address(self) -> str:
        return str(self.said("listening")[0]["address"])

    def ask(self, path: str, *, password: str | None = None, trust: str | None = None) -> tuple[int, str]:
        basic = base64.b64encode(f"prom:{password or self.password}".encode()).decode()
        request = urllib.request.Request(f"https://{self.address}{path}", headers={"Authorization": f"Basic {basic}"})
        context = ssl.create_default_context(cafile=str(self.folder / f"{trust or self.trusted}.crt"))
        try:
            with urllib.request.urlopen(request, timeout=10, context=context) as answer:  # noqa: S310 - our own daemon
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as exc:
            with exc:
                return exc.code, exc.read().decode()

    def in_force(self) -> str | None:
        lines = self.ask("/metrics")[1].splitlines()
        found = [line.split()[1] for line in lines if line.startswith("batsignal_web_config_last_reload_successful ")]
        return found[0] if found else None


def command(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.fixture(scope="module")
def guarded(postgres15: EmbeddedServer, until: Until, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    for name in ("first", "second"):
        certify(folder, name)
    write_web(folder, "first", PASSWORD)
    (folder / "token").write_text(TOKEN)
    config = {
        "servers": [{"name": "db1", "dsn": postgres15.dsn(user="watcher")}],
        "web": {"listen_address": "127.0.0.1:0", "deploy_token_file": "token"},
        "store": {"path": None},
    }
    (folder / "batsignal.yml").write_text(yaml.safe_dump(config))
    options = ["--config.file", "batsignal.yml", "--web.config.file", "web.yml", "--log.format", "json"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*COMMAND, "run", *options, "--log.level", "debug"], cwd=folder, stdout=log, stderr=log
        )
    daemon = Guarded(folder, process)
    try:
        until(lambda: daemon.said("listening"), "the daemon to listen")
        until(lambda: daemon.ask("/-/ready")[0] == 200, "the first look")
        yield daemon
    finally:
        process.terminate()
        process.wait(10)
    assert process.returncode == 0


def test_scraper_with_a_login_over_tls_is_answered_and_one_without_is_not(guarded: Guarded) -> None:
    assert "batsignal_up" in guarded.ask("/metrics")[1]
    assert guarded.ask("/metrics", password="wrong")[0] == 401
    assert guarded.said("listening")[0]["tls"] is True


def test_deploy_is_marked_over_https_with_the_token_and_the_authority_of_the_environment(guarded: Guarded) -> None:
    url = f"https://{guarded.address}"
    told = command(
        guarded.folder,
        "deploy",
        "mark",
        "web",
        "2.4.0",
        BATSIGNAL_URL=url,
        BATSIGNAL_CA=f"{guarded.trusted}.crt",
        BATSIGNAL_TOKEN=TOKEN,
    )
    assert (told.returncode, told.stderr) == (0, "")
    assert "2.4.0" in guarded.ask("/api/v1/deploys")[1]
    wrong = command(
        guarded.folder, "deploy", "mark", "web", "3", "--url", url.replace("//", "//prom:hunter2@"), "--token", "x",
        BATSIGNAL_CA=f"{guarded.trusted}.crt",
    )  # fmt: skip
    assert (wrong.returncode, "the token is not the right one" in wrong.stderr) == (2, True)
    assert "hunter2" not in wrong.stderr
    unknown = command(guarded.folder, "deploy", "mark", "web", "3", "--url", url, "--token", TOKEN)
    assert (unknown.returncode, "certificate verify failed" in unknown.stderr) == (3, True)


def test_certificate_and_users_that_change_are_in_force_without_a_restart(guarded: Guarded, until: Until) -> None:
    write_web(guarded.folder, "second", "another")

    def is_new() -> bool:
        try:
            return guarded.ask("/-/healthy", password="another", trust="second")[0] == 200
        except urllib.error.URLError:
            return False

    until(is_new, "the new rules")
    old, guarded.trusted, guarded.password = guarded.password, "second", "another"
    assert guarded.ask("/-/healthy", password=old)[0] == 401


def test_bad_change_keeps_the_old_and_says_so_in_log_and_metric(guarded: Guarded, until: Until) -> None:
    good = (guarded.folder / "web.yml").read_text()
    (guarded.folder / "web.yml").write_text("basic_auth_users: {prom: hunter2}")
    until(lambda: guarded.in_force() == "0.0", "the metric to tell")
    reason = guarded.said("web config not reloaded, the old one stays in force")[-1]["reason"]
    assert "basic_auth_users.'prom': expected a bcrypt hash" in reason
    assert "hunter2" not in (guarded.folder / "log").read_text()
    status = json.loads(guarded.ask("/api/v1/status")[1])
    assert status["config"]["web_error"] == reason
    (guarded.folder / "web.yml").write_text(good)
    guarded.process.send_signal(signal.SIGHUP)
    until(lambda: guarded.in_force() == "1.0", "the metric to tell")


def test_no_password_hash_or_token_is_logged(guarded: Guarded) -> None:
    text = (guarded.folder / "log").read_text()
    for secret in (PASSWORD, base64.b64encode(f"prom:{PASSWORD}".encode()).decode(), "$2b$", TOKEN):
        assert secret not in text


@pytest.mark.parametrize("verb", ["run", "check"])
def test_web_config_that_is_wrong_ends_the_command_with_2(tmp_path: Path, verb: str) -> None:
    (tmp_path / "web.yml").write_text("tls_server_config: {cert_file: none.crt, key_file: none.key}")
    (tmp_path / "batsignal.yml").write_text("{servers: [{name: a, dsn: 'host=127.0.0.1 port=1'}], store: {path: null}}")
    ended = command(tmp_path, verb, "--config.file", "batsignal.yml", "--web.config.file", "web.yml")
    assert ended.returncode == 2
    assert ended.stderr.startswith("batsignal: web.yml:1: tls_server_config.cert_file: expected a readable file, got")


def test_prometheus_scrapes_through_tls_and_the_login(guarded: Guarded, until: Until) -> None:
    folder = guarded.folder
    job = {
        "job_name": "batsignal",
        "scheme": "https",
        "scrape_interval": "1s",
        "basic_auth": {"username": "prom", "password": guarded.password},
        "tls_config": {"ca_file": f"{guarded.trusted}.crt", "server_name": "localhost"},
        "static_configs": [{"targets": [guarded.address]}],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump({"scrape_configs": [job]}))
    address = f"127.0.0.1:{free_port()}"
    options = ["--config.file=prometheus.yml", f"--web.listen-address={address}", "--storage.tsdb.path=tsdb"]
    with (folder / "prometheus.log").open("wb") as log:
        prometheus = subprocess.Popen(["prometheus", *options], cwd=folder, stdout=log, stderr=log)

    def is_scraped() -> bool:
        try:
            with urllib.request.urlopen(f"http://{address}/api/v1/query?query=batsignal_up", timeout=5) as answer:
                return bool(json.load(answer)["data"]["result"])
        except OSError:
            return False

    try:
        until(is_scraped, "a scrape")
    finally:
        prometheus.terminate()
        prometheus.wait(20)


FILES = {"cert_file": "a.crt", "key_file": "a.key"}


@pytest.mark.parametrize(
    ("rules", "is_good"),
    [
        ({}, True),
        ({"tls_server_config": FILES}, True),
        (
            {
                "tls_server_config": FILES
                | {"client_auth_type": "RequireAndVerifyClientCert", "client_ca_file": "a.crt", "min_version": "TLS13"}
                | {"cipher_suites": ["TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", "TLS_AES_128_GCM_SHA256"]}
                | {"curve_preferences": ["CurveP256"], "prefer_server_cipher_suites": False},
                "http_server_config": {"http2": False, "headers": {"X-Frame-Options": "deny"}},
                "basic_auth_users": {"a": "$2y$10$X0h1gDsPszWURQaxFh.zoubFi6DXncSjhoQNJgRrnGs7EsimhC7zG"},
            },
            True,
        ),
        ({"tls_server_config": FILES | {"client_auth_type": "Maybe"}}, False),
        ({"tls_server_config": FILES | {"min_version": "SSL3"}}, False),
        ({"tls_server_config": FILES | {"cipher_suites": ["TLS_RSA_WITH_RC4_128_SHA"]}}, False),
        ({"tls_server_config": FILES | {"curve_preferences": ["P256"]}}, False),
        ({"tls_server_config": {"cert_file": "a.crt"}}, False),
        ({"tls_server_config": FILES | {"client_ca_file": "a.crt"}}, False),
        ({"http_server_config": {"headers": {"X-Frame-Options": "perhaps"}}}, False),
        ({"http_server_config": {"headers": {"Set-Cookie": "a"}}}, False),
        ({"basic_auth_users": {"a": "plain"}}, False),
        ({"users": {}}, False),
    ],
)
def test_the_toolkit_itself_takes_and_refuses_the_same_files(tmp_path: Path, rules: Any, is_good: bool) -> None:
    certify(tmp_path, "a")
    (tmp_path / "web.yml").write_text(yaml.safe_dump(rules))
    toolkit = subprocess.run(
        ["promtool", "check", "web-config", "web.yml"], cwd=tmp_path, capture_output=True, check=False, timeout=60
    )
    assert (toolkit.returncode == 0) == is_good, toolkit.stderr
    try:
        Access.of(web_config.read(str(tmp_path / "web.yml")))
    except ConfigError:
        assert not is_good
    else:
        assert is_good
