import base64
import gzip
import hashlib
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest

from batsignal.detect.signal import Subject
from batsignal.expose import page
from batsignal.record.board import PastIncident, SlotSample, StoreHealth
from batsignal.record.tally import ServerTally
from batsignal.snapshot import Deploy, PollFailure

VOID = {"meta", "link", "br", "hr", "img", "input"}
DRAWING = {"path", "rect", "circle", "stop", "line"}


class Document(HTMLParser):
    """Reads the page as a browser would, and notes what does not nest."""

    def __init__(self, html: bytes) -> None:
        super().__init__()
        self.open: list[str] = []
        self.faults: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.words: list[str] = []
        self.feed(html.decode("utf-8"))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in DRAWING:
            self.faults.append(f"<{tag}/> is no shape")

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}> closes nothing")

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self.open):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def read(board: Any, now: float, **options: Any) -> str:
    return Document(page.render(board, now, **options)).text


STATES = ["quiet", "lit", "unreachable", "unprivileged", "two_signals"]


@pytest.mark.parametrize("state", STATES)
def test_document_nests_and_names_each_id_once(boards: Any, state: str) -> None:
    document = Document(page.render(getattr(boards, state)(), boards.now))
    assert document.faults == []
    assert document.open == []
    ids = [value for _, name, value in document.attributes if name == "id"]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("state", STATES)
def test_nothing_is_loaded_from_elsewhere_and_no_style_attribute_is_used(boards: Any, state: str) -> None:
    document = Document(page.render(getattr(boards, state)(), boards.now))
    assert not [entry for entry in document.attributes if entry[1] == "style" or entry[1].startswith("on")]
    links = [value for _, name, value in document.attributes if name in {"src", "href"}]
    assert links
    assert all(re.match(r"#|data:image/svg\+xml,|metrics$|api/v1/|runbooks/", link) for link in links)


def test_policy_allows_the_inlined_style_and_script_by_hash_and_nothing_more(boards: Any) -> None:
    html = page.render(boards.lit(), boards.now).decode("utf-8")
    for tag in ("style", "script"):
        (inlined,) = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inlined.encode("utf-8")).digest()).decode("ascii")
        assert f"{tag}-src 'sha256-{digest}'" in page.CONTENT_SECURITY_POLICY
    assert "unsafe" not in page.CONTENT_SECURITY_POLICY
    assert page.CONTENT_SECURITY_POLICY.startswith("default-src 'none'; ")


def test_quiet_page_says_so_and_counts_the_servers(boards: Any) -> None:
    text = read(boards.quiet(), boards.now)
    assert "All quiet" in text
    assert "1 server watched, 24 of 97 slots taken, nobody holds too much." in text
    assert "Do this" not in text


def test_lit_page_says_what_who_since_when_time_left_and_what_to_do(boards: Any) -> None:
    html = page.render(boards.lit(), boards.now, runbooks=frozenset({"BatSignalLeak"}))
    text = Document(html).text
    for words in (
        "LIT: web@2.4.0 leaks connections: 38 held, +0.5/s; slots run out in 1m50s",
        "critical",
        "connection leak on db1",
        "web@2.4.0 , user web , database shop , client 10.0.0.4",
        "38 sessions",
        "Since 09:03:44 UTC , 1m16s ago",
        "After deploy web 2.4.0 (was 2.3.9 ) at 09:03:24 UTC , 20 s before it began",
        "1:49 until no slot is left, at about 09:06:49 UTC",
        "Do this Copy Roll back web to 2.3.9. The database is healthy: do not restart it.",
        "ping 0.4 ms, no lock waits",
        "Runbook BatSignalLeak",
    ):
        assert words in text
    assert b'datetime="2025-10-09T09:03:44Z"' in html
    assert b'<main class="lit critical" data-now="1760000700.000"' in html
    assert b'data-copy="Roll back web to 2.3.9. Do not restart the database: it is healthy."' in html


def test_time_left_is_counted_from_the_tick_and_not_from_the_reading(boards: Any) -> None:
    assert "1:39 until no slot is left" in read(boards.lit(), boards.now + 10)


def test_clock_stands_at_nought_and_never_below(boards: Any) -> None:
    assert "0:00 until no slot is left" in read(boards.lit(), boards.now + 500)


def test_signal_without_an_end_shows_no_clock(boards: Any) -> None:
    board = boards.board(boards.server(signals=(boards.signal(exhaustion_seconds=math.inf),)))
    assert "until no slot" not in read(board, boards.now)


def test_role_limit_is_named_as_what_the_clock_runs_down_to(boards: Any) -> None:
    signal = boards.signal(kind="saturation", subject=Subject(limit="role:web"))
    assert "until web's own limit is reached (role)" in read(boards.board(boards.server(signals=(signal,))), boards.now)


def test_where_nobody_stands_out_that_is_said_in_so_many_words(boards: Any) -> None:
    signal = boards.signal(kind="saturation", subject=Subject(limit="server"), deploy=None)
    text = read(boards.board(boards.server(signals=(signal,))), boards.now)
    assert "Who no single culprit, limit of the server's slots" in text


def test_reserved_slots_that_are_taken_are_told_apart_from_the_usable_ones(boards: Any) -> None:
    board = boards.board(boards.server(used=98), boards.server("db2", used=20))
    text = read(board, boards.now)
    assert "97 of 97 usable slots taken, and 1 reserved for superusers, 100 in all" in text
    assert "97 of 97 (+1 reserved)" in text
    assert "98" not in text


def test_full_server_shows_no_slots_left_instead_of_a_clock(boards: Any) -> None:
    board = boards.board(boards.server(used=97, signals=(boards.signal(exhaustion_seconds=0.0),)))
    text = read(board, boards.now)
    assert "0 slots left: the server is full but alive" in text
    assert "no slot left: full but alive" in text


def test_healthy_line_is_missing_when_the_database_is_not_known_to_be_well(boards: Any) -> None:
    board = boards.board(boards.server(signals=(boards.signal(database_healthy=None, action="Look."),)))
    assert "do not restart it" not in read(board, boards.now)


def test_runbook_that_is_not_served_is_not_linked(boards: Any) -> None:
    assert b"runbooks/" not in page.render(boards.lit(), boards.now)


def test_second_signal_is_listed_below_the_most_urgent(boards: Any) -> None:
    html = page.render(boards.two_signals(), boards.now)
    text = Document(html).text
    assert "1 more signal lit, below" in text
    assert "Also lit warning health endpoint down on db1" in text
    assert text.index("leaks connections") < text.index("fails its health check")


def test_server_that_cannot_be_seen_is_never_called_quiet(boards: Any) -> None:
    text = read(boards.unreachable(), boards.now)
    assert "Cannot see db1" in text
    assert "All quiet" not in text
    assert "connection to 127.0.0.1 port 5432 refused: nothing listens there" in text
    assert "Last answer at 09:04:19 UTC , 41 s ago. The numbers below are from then." in text


@pytest.mark.parametrize(
    ("reason", "view", "headline", "way"),
    [
        ("slots_full", "walsender", "No slot left on db1", "the replication path"),
        ("slots_full", "process_titles", "No slot left on db1", "the server's process titles"),
        ("auth_failed", "process_titles", "Seeing db1 only from outside", "the server's process titles"),
    ],
)
def test_server_that_is_seen_another_way_shows_numbers_of_now_why_and_by_which_way(
    boards: Any, reason: Any, view: Any, headline: str, way: str
) -> None:
    server = boards.server()
    refusal = PollFailure(reason=reason, text="they do not let us in")
    server = replace(server, snapshot=replace(server.snapshot, view=view, refusal=refusal))
    text = read(boards.board(server), boards.now)
    assert headline in text
    assert "All quiet" not in text
    assert "they do not let us in" in text
    assert way in text
    assert "The numbers below are from then" not in text


def test_server_that_never_answered_shows_no_numbers(boards: Any) -> None:
    text = read(boards.board(boards.failing("timeout", "no answer within 2 s", answered=False)), boards.now)
    assert "It has not answered since BatSignal started." in text
    assert "slots taken" not in text


def test_stale_board_is_not_called_quiet(boards: Any) -> None:
    text = read(boards.board(boards.server(stale=True)), boards.now)
    assert "Cannot see db1" in text
    assert "no answer in time" in text


def test_missing_privilege_is_said_loudly_with_the_grant(boards: Any) -> None:
    text = read(boards.unprivileged(), boards.now)
    assert "Seeing db1 only in part" in text
    assert "The role lacks pg_monitor: counts by state are not to be trusted." in text
    assert "GRANT pg_monitor TO" in text


def test_first_look_under_way_is_not_called_quiet(boards: Any) -> None:
    text = read(boards.board("db1"), boards.now)
    assert "Taking the first look" in text
    assert "first look under way" in text


def test_empty_states_are_said_in_words(boards: Any) -> None:
    text = read(boards.board(endpoints={}, deploys=()), boards.now)
    assert "No server is configured." in text
    assert "No health endpoint is configured." in text
    assert "No deploy has been seen or told of yet." in text
    alone = boards.board(boards.server(tally=ServerTally(usage=()), answered_usage=()))
    assert "Nobody but BatSignal is connected." in read(alone, boards.now)


def test_config_that_would_not_load_is_said_on_the_page(boards: Any) -> None:
    board = replace(boards.quiet(), config_reload_ok=False, config_reload_error="servers[0].dsn: missing")
    assert "could not be reloaded; the one before it is still in use. servers[0].dsn: missing" in read(
        board, boards.now
    )


def test_web_config_that_would_not_load_is_said_on_the_page(boards: Any) -> None:
    board = replace(boards.quiet(), web_config_error="web.yml: tls_server_config.key_file: missing")
    assert "could not be reloaded; the one before it is still in use. web.yml: tls_server" in read(board, boards.now)


def test_failed_probe_shows_its_reason_once(boards: Any) -> None:
    text = read(boards.two_signals(), boards.now)
    assert "down HTTP 503" in text
    assert "HTTP 503 HTTP 503" not in text


def test_culprit_is_told_by_word_and_not_by_colour_alone(boards: Any) -> None:
    text = read(boards.lit(), boards.now)
    assert "web@2.4.0 the culprit 50" in text
    assert "web@2.4.0 50 , the culprit" in text


def test_sessions_without_a_name_are_called_unnamed_in_table_and_picture(boards: Any) -> None:
    history = tuple(SlotSample(t=boards.now - 5 + n, used=6, usable=97, by_application=(("", 5),)) for n in range(5))
    server = boards.server(history=history, tally=ServerTally(usage=(boards.count("", "", 5),)))
    text = read(boards.board(server), boards.now)
    assert "unnamed 5 others 1" in text
    assert "unnamed 5 5 idle" in text


HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'; -- {% raw %}",
    "\u202egnp.exe",
    "a\x00b\x07c\x1b[31m\ud800",
    "\u2028</style></script>",
    "x" * 63,
]


def test_template_syntax_in_a_name_is_not_evaluated(boards: Any) -> None:
    board = boards.board(boards.server(tally=ServerTally(usage=(boards.count("{{7*7}}", "", 5),))))
    assert "{{7*7}}" in read(board, boards.now)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_stay_text(boards: Any, name: str) -> None:
    signal = boards.signal(
        subject=Subject(application=name, version=name, user=name, database=name, client=name),
        summary=f"{name} leaks",
        action=name,
        evidence=(name,),
    )
    server = boards.server(name, signals=(signal,), tally=ServerTally(usage=(boards.count(name, name, 5),)))
    board = boards.board(server, deploys=(Deploy(service=name, version=name, at=boards.now - 5),))
    html = page.render(board, boards.now).decode("utf-8")
    document = Document(html.encode("utf-8"))
    assert document.faults == []
    assert {tag for tag, _, _ in document.attributes}.isdisjoint({"img", "script"})
    assert not [entry for entry in document.attributes if entry[1].startswith("on")]
    assert html.count("<script>") == 1
    assert not re.search("[\x00-\x09\x0b-\x1f\u202a-\u202e\u2066-\u2069\u2028]", html)


def test_right_to_left_override_is_spelled_out(boards: Any) -> None:
    board = boards.board(boards.server(tally=ServerTally(usage=(boards.count("\u202egnp", "", 5),))))
    assert r"\u{202e}gnp" in read(board, boards.now)


def test_page_of_a_busy_fleet_stays_light(boards: Any) -> None:
    servers = [
        boards.server(
            f"db{n}", used=62, history=boards.history(62, seconds=900), signals=(boards.signal(server=f"db{n}"),)
        )
        for n in range(8)
    ]
    assert len(gzip.compress(page.render(boards.board(*servers), boards.now))) < 40_000
    assert len(page.render(boards.board(servers[0]), boards.now)) < 40_000


def test_page_without_scripts_refreshes_itself(boards: Any) -> None:
    html = page.render(boards.quiet(), boards.now)
    assert b'<noscript><meta http-equiv="refresh" content="5"></noscript>' in html


def test_the_last_incidents_are_listed_each_with_its_story(boards: Any) -> None:
    assert "Recent incidents No incident is known." in read(boards.quiet(), boards.now)
    common = {"server": "db1", "kind": "leak", "severity": "critical", "since": boards.now - 700}
    incidents = (
        PastIncident(id="b2", summary="web <leaks>", detected=boards.now - 600, **common),
        PastIncident(id="a1", summary="", detected=boards.now - 650, ended=boards.now - 580, **common),
    )
    board = replace(boards.quiet(), incidents=incidents)
    text = read(board, boards.now)
    assert re.search(
        r"Recent incidents critical web <leaks> db1 : began 08:53:20 UTC , named 1m40s later, goes on for"
        r" 11m40s critical connection leak db1 : .*, ended 08:55:20 UTC , lasted 2 min ",
        text,
    ), text
    assert b'href="incidents/b2"' not in page.render(board, boards.now), "nothing is kept on disk"
    assert b'href="incidents/b2"' in page.render(replace(board, store=StoreHealth(up=True)), boards.now)


def test_a_word_for_the_state_changes_with_the_state_and_with_no_number(boards: Any) -> None:
    def state(board: Any) -> str:
        return dict(entry[1:] for entry in Document(page.render(board, boards.now)).attributes)["data-state"]

    lit = boards.lit()
    grown = boards.board(boards.server(used=70, signals=(boards.signal(sessions=46, summary="46 held"),)))
    calmer = boards.board(boards.server(used=62, signals=(boards.signal(severity="warning"),)))
    assert state(lit) == state(grown)
    assert len({state(board) for board in (lit, calmer, boards.quiet(), boards.two_signals())}) == 4


def test_a_fleet_is_a_list_with_the_worst_first_and_only_the_worst_have_a_card(boards: Any) -> None:
    fleet = [boards.server(f"db{n}", used=20 + n) for n in range(1, 9)]
    full = boards.server("shop", used=97, signals=(boards.signal(server="shop", severity="warning"),))
    gone = boards.failing("timeout", "no answer within 2 s", name="archive")
    html = page.render(boards.board(*fleet, gone, full, "new"), boards.now)
    text = Document(html).text
    order = [
        text.index(f" {name} ", text.index("11 servers, the worst first")) for name in ("shop", "archive", "new", "db8")
    ]
    assert order == sorted(order)
    assert html.count(b"<article") == 6
    assert "24 of 97, 41 s ago" in text


def test_many_servers_that_cannot_be_seen_are_counted_and_not_all_named_in_the_headline(boards: Any) -> None:
    servers = [boards.failing("timeout", "no answer within 2 s", name=f"db{n}") for n in range(40)]
    text = read(boards.board(*servers), boards.now)
    assert "Cannot see db0, db1, db10 and 37 more" in text
    assert "and 35 more servers." in text
