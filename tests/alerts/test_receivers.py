"""What PagerDuty, Slack, a mailbox and a webhook get: from the shipped receivers and templates, by a real Alertmanager.

Addresses and the files of the secrets are put in, and a route to each receiver; nothing else is changed. What stands
for the outside world is local.
"""

import base64
import email
import email.policy
import json
import re
import shutil
import socketserver
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from paging import answers, free_port

ALERTS = Path(__file__).parents[2] / "alerts"
DEADLINE_SECONDS = 40.0
WAYS = ("pagerduty", "slack", "email", "webhook")
HOSTILE = '<!channel> & "co" *b* <https://evil.example|pay>'
SECRETS = {
    "pagerduty_routing_key": "r0uting-key",
    "smtp_password": "pa:ss w0rd",
    "webhook_token": "t0ken",
}


@dataclass(slots=True)
class Outside:
    """What arrived, in order."""

    requests: list[tuple[str, dict[str, str], dict[str, Any]]] = field(default_factory=list)
    mails: list[EmailMessage] = field(default_factory=list)
    logins: list[bytes] = field(default_factory=list)

    def to(self, path: str, says: str) -> list[tuple[dict[str, str], dict[str, Any]]]:
        return [(headers, body) for at, headers, body in list(self.requests) if at == path and says in json.dumps(body)]

    def mailed(self, says: str) -> list[EmailMessage]:
        return [mail for mail in list(self.mails) if says in str(mail["Subject"])]


class Threaded(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


def http_server(outside: Outside) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            outside.requests.append((self.path, dict(self.headers), body))
            answer = b'{"status":"success"}'
            self.send_response(202 if self.path == "/pagerduty" else 200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            """Keep the tests' output quiet."""

    return ThreadingHTTPServer(("127.0.0.1", 0), Handler)


def mail_server(outside: Outside) -> Threaded:
    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.say(b"220 local")
            while line := self.rfile.readline():
                verb = line[:4].upper()
                if verb == b"EHLO":
                    self.say(b"250-local\r\n250 AUTH PLAIN")
                elif verb == b"AUTH":
                    outside.logins.append(base64.b64decode(line.split()[-1]))
                    self.say(b"235 welcome")
                elif verb == b"DATA":
                    self.say(b"354 go on")
                    outside.mails.append(self.mail())
                    self.say(b"250 taken")
                elif verb == b"QUIT":
                    self.say(b"221 bye")
                    return
                else:
                    self.say(b"250 fine")

        def say(self, words: bytes) -> None:
            self.wfile.write(words + b"\r\n")

        def mail(self) -> EmailMessage:
            lines = []
            while (line := self.rfile.readline()) not in {b".\r\n", b""}:
                lines.append(line.removeprefix(b"."))
            message = email.message_from_bytes(b"".join(lines), policy=email.policy.default)
            assert isinstance(message, EmailMessage)
            return message

    return Threaded(("127.0.0.1", 0), Handler)


@dataclass(frozen=True, slots=True)
class Alertmanager:
    url: str
    outside: Outside

    def send(self, way: str, *, application: str, over: bool = False, said: str = "", **labels: str) -> dict[str, str]:
        """Send an alert of that application to a receiver, or its end; return its annotations."""
        now = datetime.now(UTC)
        annotations = {
            "summary": f"{application}@2.4.0 leaks connections on db1: 41 held, slots run out in 1m 50s.",
            "description": "60 of 97 slots on db1 are used. The database is healthy: this is not a database outage.",
            "action": f"Roll back {application}@2.4.0. Do not restart the database: it is healthy.",
            "runbook_url": "http://localhost:9988/runbooks/BatSignalLeak",
            "page_url": "http://localhost:9988/",
            "dashboard_url": "http://localhost:3000/d/batsignal-connections?var-server=d%26b1",
        }
        if over:
            annotations["summary"] = f"{application} leaked connections on db1, for 11 min. It is over."
            annotations["summary"] = said or annotations["summary"]
            annotations["action"] = "Nothing is to be undone or restarted for it now."
        alert = {
            "labels": {
                "alertname": "BatSignalLeak",
                "kind": "leak",
                "severity": "critical",
                "server": "db1",
                "application": application,
                "way": way,
                **labels,
            },
            "annotations": annotations,
            "startsAt": (now - timedelta(seconds=30)).isoformat(),
            "endsAt": (now - timedelta(seconds=1) if over else now + timedelta(minutes=5)).isoformat(),
        }
        httpx.post(f"{self.url}/api/v2/alerts", json=[alert], trust_env=False).raise_for_status()
        return annotations


def until(found: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < deadline:
        if result := found():
            return result
        time.sleep(0.05)
    raise AssertionError(f"not within {DEADLINE_SECONDS:.0f} s: {what}")


@pytest.fixture(scope="module")
def alertmanager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alertmanager]:
    folder = tmp_path_factory.mktemp("receivers")
    outside = Outside()
    with ExitStack() as stack:
        http, smtp = stack.enter_context(http_server(outside)), stack.enter_context(mail_server(outside))
        for server in (http, smtp):
            threading.Thread(target=server.serve_forever, daemon=True).start()
            stack.callback(server.shutdown)
        outer = f"http://127.0.0.1:{http.server_address[1]}"
        put_together(folder, outer, smtp.server_address[1])
        port = free_port()
        command = ["prometheus-alertmanager", f"--config.file={folder / 'alertmanager.yml'}"]
        command += [f"--storage.path={folder / 'data'}", f"--web.listen-address=127.0.0.1:{port}"]
        process = stack.enter_context(
            subprocess.Popen([*command, "--cluster.listen-address=", "--log.level=error"], stdin=subprocess.DEVNULL)
        )
        stack.callback(process.terminate)
        until(lambda: answers(f"http://127.0.0.1:{port}/-/ready"), "Alertmanager is ready")
        yield Alertmanager(f"http://127.0.0.1:{port}", outside)


def put_together(folder: Path, outer: str, smtp_port: int) -> None:
    """Put the shipped files into a folder, with addresses, secrets and a route to each receiver."""
    shutil.copytree(ALERTS / "templates", folder / "templates")
    for name, secret in {**SECRETS, "slack_url": f"{outer}/slack"}.items():
        (folder / name).write_text(secret)
    text = (ALERTS / "alertmanager.yml").read_text(encoding="utf-8")
    config = yaml.safe_load(text.replace("/etc/alertmanager/secrets/", f"{folder}/"))
    ready = {receiver["name"]: receiver for receiver in config["receivers"]}
    (pagerduty,) = ready["pagerduty"]["pagerduty_configs"]
    pagerduty["url"] = f"{outer}/pagerduty"
    (mail,) = ready["email"]["email_configs"]
    mail |= {"smarthost": f"127.0.0.1:{smtp_port}", "require_tls": False}
    (webhook,) = ready["webhook"]["webhook_configs"]
    webhook["url"] = f"{outer}/webhook"
    config["route"]["routes"] = [
        {"matchers": [f'way="{way}"'], "receiver": way, "group_wait": "0s", "group_interval": "1s"} for way in WAYS
    ]
    config["inhibit_rules"] = []
    (folder / "alertmanager.yml").write_text(yaml.safe_dump(config))


def test_every_receiver_that_stands_ready_is_tried_here() -> None:
    config = yaml.safe_load((ALERTS / "alertmanager.yml").read_text(encoding="utf-8"))
    assert {receiver["name"] for receiver in config["receivers"]} == {"pager", "morning", "deadman", *WAYS}


def test_pagerduty_gets_one_incident_with_what_to_do_and_resolves_it(alertmanager: Alertmanager) -> None:
    texts = alertmanager.send("pagerduty", application="web")
    _, body = until(lambda: alertmanager.outside.to("/pagerduty", '"trigger"'), "an incident")[0]
    payload = body["payload"]
    assert body["routing_key"] == "r0uting-key"
    assert payload["summary"] == texts["summary"]
    assert (payload["severity"], payload["class"]) == ("critical", "BatSignalLeak")
    assert (payload["group"], payload["component"]) == ("db1", "web")
    assert payload["custom_details"]["do"] == texts["action"]
    assert "this is not a database outage" in payload["custom_details"]["alerts"]
    assert {(link["text"], link["href"]) for link in body["links"]} == {
        ("Runbook", texts["runbook_url"]),
        ("Dashboard", texts["dashboard_url"]),
    }
    alertmanager.send("pagerduty", application="web", over=True)
    _, end = until(lambda: alertmanager.outside.to("/pagerduty", '"resolve"'), "its end")[0]
    assert end["dedup_key"] == body["dedup_key"]


def test_slack_shows_the_sentence_the_action_the_verdict_and_the_links_and_calls_nobody(
    alertmanager: Alertmanager,
) -> None:
    texts = alertmanager.send("slack", application=HOSTILE)
    _, body = until(lambda: alertmanager.outside.to("/slack", "danger"), "a message")[0]
    (message,) = body["attachments"]
    shown = {key: message[key] for key in ("title", "text", "fallback")}
    escaped = HOSTILE.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    assert message["title"] == texts["summary"].replace(HOSTILE, escaped)
    lines = message["text"].strip().split("\n")
    assert lines[0] == texts["action"].replace(HOSTILE, escaped)
    assert lines[1] == texts["description"]
    assert lines[2] == (
        "<http://localhost:9988/runbooks/BatSignalLeak|Runbook> · <http://localhost:9988/|Live> · "
        "<http://localhost:3000/d/batsignal-connections?var-server=d%26b1|Dashboard>"
    )
    assert len(lines) == 3
    for text in shown.values():
        assert not re.search(r"<(?!http://localhost)", text), "only our own links are markup"
    assert message["title_link"] == "http://localhost:9988/"


def test_slack_tells_several_alerts_one_after_the_other_and_their_end(alertmanager: Alertmanager) -> None:
    for user in ("a", "b"):
        texts = alertmanager.send("slack", application="twice", user=user)
    until(
        lambda: [
            body
            for _, body in alertmanager.outside.to("/slack", "twice")
            if body["attachments"][0]["title"] == f"{texts['summary']} (and 1 more)"
            and body["attachments"][0]["text"].count(f"*{texts['summary']}*") == 2
        ],
        "a message of both",
    )
    for user in ("a", "b"):
        alertmanager.send("slack", application="twice", user=user, over=True)
    over = "Over: twice leaked connections on db1, for 11 min."
    (message,) = until(
        lambda: [
            body["attachments"][0]
            for _, body in alertmanager.outside.to("/slack", over)
            if body["attachments"][0]["color"] == "good"
        ],
        "a message of their end",
    )
    assert message["title"] == f"{over} (and 1 more)"
    assert message["text"].split("\n")[:2] == [over, over]
    assert "Roll back" not in json.dumps(message)


def test_the_end_of_what_tells_no_end_itself_is_its_last_words_as_such(alertmanager: Alertmanager) -> None:
    labels = {"alertname": "BatSignalSlotsFull", "kind": "slots_full"}
    texts = alertmanager.send("slack", application="full", **labels)
    until(lambda: alertmanager.outside.to("/slack", "full@2.4.0"), "a message")
    alertmanager.send("slack", application="full", over=True, said=texts["summary"], **labels)
    said = f"Over; it had said: {texts['summary']}"
    until(lambda: alertmanager.outside.to("/slack", said), "a message of its end")


def test_a_mail_reads_on_a_phone_and_takes_no_markup_from_a_name(alertmanager: Alertmanager) -> None:
    texts = alertmanager.send("email", application=HOSTILE)
    (mail, *_) = until(lambda: alertmanager.outside.mailed("leaks"), "a mail")
    assert mail["Subject"] == texts["summary"]
    assert b"pa:ss w0rd" in alertmanager.outside.logins[0]
    plain, html = mail.get_body(("plain",)), mail.get_body(("html",))
    assert plain is not None
    assert html is not None
    words = plain.get_content().splitlines()
    assert words[0] == f"critical: {texts['summary']}"
    assert words[1] == f"Do: {texts['action']}"
    assert words[2] == texts["description"]
    markup = html.get_content()
    assert "&lt;!channel&gt;" in markup
    assert "<!channel>" not in markup
    assert "evil.example|pay>" not in markup
    assert markup.count("<a href=") == 3
    alertmanager.send("email", application=HOSTILE, over=True)
    (mail, *_) = until(lambda: alertmanager.outside.mailed("Over: "), "a mail of its end")
    assert mail["Subject"] == f"Over: {HOSTILE} leaked connections on db1, for 11 min."


def test_a_webhook_gets_the_token_and_all_there_is(alertmanager: Alertmanager) -> None:
    texts = alertmanager.send("webhook", application="web")
    headers, body = until(lambda: alertmanager.outside.to("/webhook", '"firing"'), "a page")[0]
    assert headers["Authorization"] == "Bearer t0ken"
    assert body["alerts"][0]["annotations"] == texts
