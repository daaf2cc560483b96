from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from psycopg2.extensions import parse_dsn

from batsignal.config import APPLICATION_PATTERN, LISTEN_ADDRESS, Config, load
from batsignal.config.dsn import fault
from batsignal.errors import ConfigError

SECRET = "s3cr3t-pa55"
DSN = f"postgresql://batsignal:{SECRET}@db1/postgres"
SERVER = f"servers:\n  - name: db1\n    dsn: {DSN}\n"

A_DSN = "a libpq connection string (postgresql://... or key=value pairs)"
A_NAME = "a name of 1 to 63 characters without spaces or control characters"
A_URL = "an http:// or https:// URL with a host"
SERVERS = "a list of at least one server, each with name and dsn"
TOP_KEYS = "servers, endpoints, application_pattern, web, store, metrics"
SERVER_KEYS = (
    "name, dsn, emergency_dsn, pgbouncer_dsn, poll_interval_seconds, data_directory,"
    " dsn_file, emergency_dsn_file, pgbouncer_dsn_file"
)
NO_PATH = "expected the path of a file, got what looks like a connection string or a file's content"
# Eight lines, 43 million keys.
BOMB = "a: &a {k: 1}\n" + "".join(
    f"{name}: &{name} {{<<: [{', '.join([f'*{before}'] * 9)}]}}\n" for before, name in pairwise("abcdefghi")
)
NO_CONSTRUCTOR = ":1:10: expected valid YAML: could not determine a constructor for the tag"
INTERVAL = "servers[0].poll_interval_seconds: expected a number of seconds from 0.2 to 60, got"
ADDRESS = "web.listen_address: expected HOST:PORT, [IPV6]:PORT or :PORT, got"
PATTERN = "application_pattern: expected a regular expression with a group named 'service', got"


def server(key: str = "", dsn: str = DSN) -> str:
    return f"servers:\n  - name: db1\n    dsn: {dsn}\n    {key}\n"


def endpoint(keys: str) -> str:
    return f"{SERVER}endpoints:\n  - {{name: web, {keys}}}\n"


# What is wrong, the file, and what is said of it behind the file's name.
BROKEN: tuple[tuple[str, str | bytes, str], ...] = (
    ("an empty file", "", f":1: servers: missing; expected {SERVERS}"),
    ("comments only", "# soon\n", f":1: servers: missing; expected {SERVERS}"),
    ("a list at the top", "- name: db1\n", ":1: expected a mapping with the key servers, got a list"),
    ("a text at the top", "hello\n", ":1: expected a mapping with the key servers, got 'hello'"),
    ("a connection string at the top", DSN, ":1: expected a mapping with the key servers, got something else"),
    ("two documents", "a: 1\n---\nb: 2\n", ":2:1: expected valid YAML: but found another document"),
    ("a bracket left open", f"{SERVER}  x: [\n", ":4:3: expected valid YAML: expected <block end>, but found '?'"),
    ("a tab", "servers:\n\t- a\n", ":2:1: expected valid YAML: found character '\\t' that cannot start any token"),
    ("an alias to nothing", "servers: *x\n", ":1:10: expected valid YAML: found undefined alias 'x'"),
    ("a key twice", server("name: db2"), ":4:5: expected valid YAML: the key 'name' stands twice"),
    ("a top key twice", SERVER + SERVER, ":4:1: expected valid YAML: the key 'servers' stands twice"),
    (
        "an anchor within itself",
        "servers: &a\n  - *a\n",
        ":1:10: expected valid YAML: found unconstructable recursive node",
    ),
    (
        "a tag that makes objects",
        "servers: !!python/object:os.system {}\n",
        f"{NO_CONSTRUCTOR} 'tag:yaml.org,2002:python/object:os.system'",
    ),
    (
        "an unknown tag",
        "servers: !vault x\n",
        f"{NO_CONSTRUCTOR} '!vault'",
    ),
    ("a list as a key", "? [a]\n: b\n", ":1:3: expected valid YAML: found unhashable key"),
    ("no such date", "servers: 2024-13-01\n", ":1:10: expected valid YAML: month must be in 1..12"),
    ("brackets without end", "servers: " + "[" * 5000, ":1: expected valid YAML: nested too deeply"),
    (
        "a zero byte",
        "servers: \0\n",
        ":1: expected valid YAML: unacceptable character #x0000: special characters are not allowed",
    ),
    (
        "a zero byte further down",
        SERVER + "web:\0\n",
        ":4: expected valid YAML: unacceptable character #x0000: special characters are not allowed",
    ),
    ("brackets without end further down", SERVER + "web: " + "[" * 5000, ":4: expected valid YAML: nested too deeply"),
    ("Latin-1", "# Größe\n".encode("latin-1"), ":1: expected a text file in UTF-8, got other bytes at offset 4"),
    ("an unknown key", f"{SERVER}colour: red\n", f":4: colour: unknown key; expected one of {TOP_KEYS}"),
    ("a near miss", f"{SERVER}endpoint: []\n", ":4: endpoint: unknown key; expected endpoints (did you mean that?)"),
    (
        "a near miss in a server",
        server("poll_interval: 1"),
        ":4: servers[0].poll_interval: unknown key; expected poll_interval_seconds (did you mean that?)",
    ),
    (
        "a near miss that explains a missing key",
        f"servers:\n  - name: db1\n    dns: {DSN}\n",
        ":3: servers[0].dns: unknown key; expected dsn (did you mean that?)",
    ),
    (
        "an unknown key in a server",
        server("colour: red"),
        f":4: servers[0].colour: unknown key; expected one of {SERVER_KEYS}",
    ),
    (
        "a password beside the dsn",
        server(f"password: {SECRET}"),
        f":4: servers[0].password: unknown key; expected one of {SERVER_KEYS}",
    ),
    (
        "a bad value among comments, blank lines and a text of several lines",
        f"# one\n\nservers:\n  # two\n  - dsn: >-\n      {DSN}\n\n    name: 5\n",
        f":8: servers[0].name: expected {A_NAME}, got 5",
    ),
    (
        "a bad value in the second of two",
        f"{SERVER}  - name: db2\n    dsn: host=h\n    poll_interval_seconds: 0\n",
        ":6: servers[1].poll_interval_seconds: expected a number of seconds from 0.2 to 60, got 0",
    ),
    (
        "a bad value that is merged from elsewhere",
        f"x: &x {{poll_interval_seconds: 0}}\nservers:\n  - <<: *x\n    name: db1\n    dsn: {DSN}\n",
        f":1: x: unknown key; expected one of {TOP_KEYS}",
    ),
    (
        "a bad value that a second server merges from the first",
        f"servers:\n  - &a\n    name: db1\n    dsn: {DSN}\n  - <<: *a\n    name: ''\n",
        f":6: servers[1].name: expected {A_NAME}, got ''",
    ),
    (
        "a near miss in web",
        f"{SERVER}web: {{listen: x}}\n",
        ":4: web.listen: unknown key; expected listen_address (did you mean that?)",
    ),
    ("a number as a key", f"1: 2\n{SERVER}", f":1: 1: unknown key; expected one of {TOP_KEYS}"),
    ("a number as a key of a server", server("1: 2"), f":4: servers[0].1: unknown key; expected one of {SERVER_KEYS}"),
    ("a key of two lines", f'"a\\nb": 1\n{SERVER}', f":1: 'a\\nb': unknown key; expected one of {TOP_KEYS}"),
    ("a secret as a key", f'"{DSN}": 1\n{SERVER}', f":1: something else: unknown key; expected one of {TOP_KEYS}"),
    ("servers without any", "servers:\n", f":1: servers: expected {SERVERS}, got nothing"),
    ("an empty list of servers", "servers: []\n", f":1: servers: expected {SERVERS}, got an empty list"),
    ("servers as a mapping", "servers: {name: db1}\n", f":1: servers: expected {SERVERS}, got a mapping"),
    ("a server as a text", "servers: [db1]\n", ":1: servers[0]: expected a mapping with name and dsn, got 'db1'"),
    (
        "a server as a connection string",
        f"servers: ['{DSN}']\n",
        ":1: servers[0]: expected a mapping with name and dsn, got something else",
    ),
    ("no dsn", "servers:\n  - name: db1\n", f":2: servers[0].dsn: missing; expected {A_DSN}"),
    ("no name", f"servers:\n  - dsn: {DSN}\n", f":2: servers[0].name: missing; expected {A_NAME}"),
    ("a dsn of nothing", "servers:\n  - name: db1\n    dsn:\n", f":3: servers[0].dsn: expected {A_DSN}, got nothing"),
    ("a dsn that is a list", server(dsn=f"[{SECRET}]"), f":3: servers[0].dsn: expected {A_DSN}, got a list"),
    ("a dsn that is a number", server(dsn="5432"), f":3: servers[0].dsn: expected {A_DSN}, got 5432"),
    (
        "a URI that libpq cannot read",
        server(dsn=f"postgresql://u:{SECRET}@h/%zz"),
        f":3: servers[0].dsn: expected {A_DSN}, got a text that cannot be read so",
    ),
    (
        "keywords that libpq cannot read",
        server(dsn=f"host=db1 password={SECRET} nonsense"),
        f":3: servers[0].dsn: expected {A_DSN}, got a text that cannot be read so",
    ),
    *(
        (
            f"a dsn whose {what}",
            server(dsn=dsn),
            f":3: servers[0].dsn: expected {A_DSN}, got a text that cannot be read so: {said}",
        )
        for what, dsn, said in (
            ("port is a word", "host=db1 port=notaport", "its port is no number from 1 to 65535"),
            ("port is too large", "postgresql://db1:65536/shop", "its port is no number from 1 to 65535"),
            ("second port is zero", "'postgresql://db1,db2:0/shop'", "its port is no number from 1 to 65535"),
            ("ports are too many", "host=db1 port=1,2", "expected one port for all hosts, or one for each"),
            (
                "sslmode is none",
                "host=db1 sslmode=on",
                "its sslmode is none of disable, allow, prefer, require, verify-ca, verify-full",
            ),
            ("patience is a word", "host=db1 connect_timeout=long", "its connect_timeout is no whole number"),
            (
                "password has an @ in it",
                f"postgresql://u:a@{SECRET}@h/d",
                "an @ in a user's name or password must be written as %40",
            ),
            (
                "password begins a database's name",
                f"postgresql://u:5432/{SECRET}@h/d",
                "a / in a user's name or password must be written as %2F, an @ in a database's name as %40",
            ),
            (
                "password begins a setting",
                f"postgresql://u:5432?user={SECRET}@h/d",
                "a ? in a user's name or password must be written as %3F, an @ behind the ? as %40",
            ),
        )
    ),
    (
        "a dsn that libpq would read to the middle",
        server(dsn='"host=db1\\0evil"'),
        f":3: servers[0].dsn: expected {A_DSN}, got a text that cannot be read so",
    ),
    (
        "a second dsn that libpq cannot read",
        server(f"emergency_dsn: postgresql://u:{SECRET}@h/%zz"),
        f":4: servers[0].emergency_dsn: expected {A_DSN}, got a text that cannot be read so",
    ),
    (
        "a variable that is not set",
        server(dsn="${NOPE}"),
        ":3: servers[0].dsn: expected the environment variable NOPE to be set",
    ),
    (
        "a dsn_file that is missing",
        "servers:\n  - name: db1\n    dsn_file: /no/such/file\n",
        ":3: servers[0].dsn_file: expected a readable file, got '/no/such/file': No such file or directory",
    ),
    (
        "a dsn_file that is a directory",
        "servers:\n  - name: db1\n    dsn_file: /\n",
        ":3: servers[0].dsn_file: expected a readable file, got '/': Is a directory",
    ),
    (
        "a dsn_file that is empty",
        "servers:\n  - name: db1\n    dsn_file: /dev/null\n",
        ":3: servers[0].dsn_file: expected a connection string, got an empty file, '/dev/null'",
    ),
    (
        "a dsn_file that is a number",
        "servers:\n  - name: db1\n    dsn_file: 5\n",
        ":3: servers[0].dsn_file: expected the path of a file, got 5",
    ),
    ("a dsn twice over", server("dsn_file: x"), ":4: servers[0].dsn_file: expected either dsn or dsn_file, got both"),
    (
        "a name with a space",
        "servers:\n  - name: my db\n    dsn: host=h\n",
        f":2: servers[0].name: expected {A_NAME}, got 'my db'",
    ),
    ("an empty name", "servers:\n  - name: ''\n    dsn: host=h\n", f":2: servers[0].name: expected {A_NAME}, got ''"),
    (
        "a name too long",
        f"servers:\n  - name: {'x' * 64}\n    dsn: host=h\n",
        f":2: servers[0].name: expected {A_NAME}, got '{'x' * 56}...",
    ),
    (
        "a date for a name",
        "servers:\n  - name: 2024-01-01\n    dsn: host=h\n",
        f":2: servers[0].name: expected {A_NAME}, got 2024-01-01",
    ),
    (
        "a secret for a name",
        f"servers:\n  - name: host=h password={SECRET}\n    dsn: host=h\n",
        f":2: servers[0].name: expected {A_NAME}, got something else",
    ),
    (
        "two servers of one name",
        f"{SERVER}  - {{name: db1, dsn: host=h}}\n",
        ":4: servers[1].name: expected a name of its own, got 'db1', which servers[0] has already",
    ),
    ("an interval of nothing", server("poll_interval_seconds:"), f":4: {INTERVAL} nothing"),
    ("an interval that is no number", server("poll_interval_seconds: .nan"), f":4: {INTERVAL} nan"),
    ("an infinite interval", server("poll_interval_seconds: .inf"), f":4: {INTERVAL} inf"),
    ("a boolean interval", server("poll_interval_seconds: yes"), f":4: {INTERVAL} true"),
    ("an interval as a text", server("poll_interval_seconds: '1'"), f":4: {INTERVAL} '1'"),
    ("an interval with a unit", server("poll_interval_seconds: 1s"), f":4: {INTERVAL} '1s'"),
    ("an interval just too short", server("poll_interval_seconds: 0.19"), f":4: {INTERVAL} 0.19"),
    ("an interval just too long", server("poll_interval_seconds: 60.1"), f":4: {INTERVAL} 60.1"),
    (
        "a data directory that is a number",
        server("data_directory: 5"),
        ":4: servers[0].data_directory: expected the path of the server's data directory on this host, got 5",
    ),
    (
        "an endpoint as a text",
        f"{SERVER}endpoints: [web]\n",
        ":4: endpoints[0]: expected a mapping with name and url, got 'web'",
    ),
    (
        "an endpoint without a url",
        f"{SERVER}endpoints: [{{name: web}}]\n",
        f":4: endpoints[0].url: missing; expected {A_URL}",
    ),
    (
        "a URL of another kind",
        endpoint("url: 'ftp://web/'"),
        f":5: endpoints[0].url: expected {A_URL}, got 'ftp://web/'",
    ),
    (
        "a URL without a host",
        endpoint("url: 'http:///healthz'"),
        f":5: endpoints[0].url: expected {A_URL}, got 'http:///healthz'",
    ),
    ("a URL that is a path", endpoint("url: /healthz"), f":5: endpoints[0].url: expected {A_URL}, got '/healthz'"),
    (
        "a URL with a login",
        endpoint(f"url: 'ftp://bob:{SECRET}@web/'"),
        f":5: endpoints[0].url: expected {A_URL}, got something else",
    ),
    (
        "a URL with a token",
        endpoint(f"url: 'http:///?key={SECRET}'"),
        f":5: endpoints[0].url: expected {A_URL}, got something else",
    ),
    (
        "a URL with a port too large",
        endpoint("url: 'http://web:99999'"),
        f":5: endpoints[0].url: expected {A_URL}, got 'http://web:99999': Port out of range 0-65535",
    ),
    (
        "two endpoints of one name",
        f"{endpoint('url: http://a')}  - {{name: web, url: 'http://b'}}\n",
        ":6: endpoints[1].name: expected a name of its own, got 'web', which endpoints[0] has already",
    ),
    (
        "an endpoint of an unknown server",
        endpoint("url: 'http://web', servers: [db1, db2]"),
        ":5: endpoints[0].servers: expected names from servers (db1), got 'db2'",
    ),
    (
        "an endpoint with a text for servers",
        endpoint("url: 'http://web', servers: db1"),
        ":5: endpoints[0].servers: expected a list of server names, got 'db1'",
    ),
    (
        "an endpoint with a number for a server",
        endpoint("url: 'http://web', servers: [1]"),
        ":5: endpoints[0].servers[0]: expected a list of server names, got 1",
    ),
    (
        "an endpoint of no server",
        endpoint("url: 'http://web', servers: []"),
        ":5: endpoints[0].servers: expected a list of server names, got an empty list",
    ),
    (
        "a timeout of zero",
        endpoint("url: 'http://web', timeout_seconds: 0"),
        ":5: endpoints[0].timeout_seconds: expected a number of seconds from 0.1 to 60, got 0",
    ),
    (
        "a pattern that is none",
        f"{SERVER}application_pattern: '('\n",
        f":4: {PATTERN} '(': missing ), unterminated subpattern at position 0",
    ),
    (
        "a pattern without its group",
        f"{SERVER}application_pattern: '(.*)'\n",
        f":4: {PATTERN} '(.*)': no group has that name",
    ),
    (
        "a pattern that one name would hold up for ever",
        f"{SERVER}application_pattern: '(?P<service>(a+)+)@'\n",
        f":4: {PATTERN} '(?P<service>(a+)+)@': it takes too long on a name such as '{'a' * 62}!'",
    ),
    ("a port alone", f"{SERVER}web: {{listen_address: 9988}}\n", f":4: {ADDRESS} 9988"),
    ("a host alone", f"{SERVER}web: {{listen_address: localhost}}\n", f":4: {ADDRESS} 'localhost'"),
    ("a port too large", f"{SERVER}web: {{listen_address: 'h:65536'}}\n", f":4: {ADDRESS} 'h:65536'"),
    ("a bare IPv6 address", f"{SERVER}web: {{listen_address: '::1:80'}}\n", f":4: {ADDRESS} '::1:80'"),
    ("web as a number", f"{SERVER}web: 9988\n", ":4: web: expected a mapping with listen_address, got 9988"),
    ("web of nothing", f"{SERVER}web:\n", ":4: web: expected a mapping with listen_address, got nothing"),
    (
        "days as a boolean",
        f"{SERVER}store: {{keep_days: true}}\n",
        ":4: store.keep_days: expected a whole number of days from 1 to 3650, got true",
    ),
    (
        "a store of a number",
        f"{SERVER}store: {{path: 5}}\n",
        ":4: store.path: expected the path of a file, or null, got 5",
    ),
    (
        "a token's file that is none",
        f"{SERVER}web: {{deploy_token_file: 5}}\n",
        ":4: web.deploy_token_file: expected the path of a file with the token, got 5",
    ),
    (
        "a number of thousands of digits",
        f"{SERVER}store: {{keep_days: 0x{'f' * 5000}}}\n",
        ":4: store.keep_days: expected a whole number of days from 1 to 3650, got a number that is far too large",
    ),
    (
        "a path that none can be",
        f'{SERVER}store: {{path: "a\\0b"}}\n',
        r":4: store.path: expected the path of a file, or null, got 'a\x00b': no path has a zero byte in it",
    ),
    ("an empty dsn", server(dsn="''"), ":3: servers[0].dsn: expected a connection string, got an empty text"),
    (
        "an empty dsn of another way",
        server("emergency_dsn: ' '"),
        ":4: servers[0].emergency_dsn: expected a connection string, got an empty text",
    ),
    (
        "an empty dsn of a pooler",
        server("pgbouncer_dsn: ''"),
        ":4: servers[0].pgbouncer_dsn: expected a connection string, got an empty text",
    ),
    (
        "a connection string for its file",
        f"servers: [{{name: db1, dsn_file: '{DSN}'}}]\n",
        f":1: servers[0].dsn_file: {NO_PATH}",
    ),
    (
        "key=value pairs for their file",
        f"servers: [{{name: db1, dsn_file: 'host=h password={SECRET}'}}]\n",
        f":1: servers[0].dsn_file: {NO_PATH}",
    ),
    (
        "a connection string for a token's file",
        f"{SERVER}web: {{deploy_token_file: '{DSN}'}}\n",
        f":4: web.deploy_token_file: {NO_PATH}",
    ),
    (
        "a login for a token's file",
        f"{SERVER}web: {{release_token_file: 'bob:{SECRET}@db1'}}\n",
        f":4: web.release_token_file: {NO_PATH}",
    ),
    (
        "merges that nest",
        BOMB,
        ":5:4: expected valid YAML: its merges (<<) come to more than 10000 keys",
    ),
    (
        "half a name",
        f"{SERVER}metrics: {{top_names: 1.5}}\n",
        ":4: metrics.top_names: expected a whole number from 1 to 2000, got 1.5",
    ),
)


def written(folder: Path, content: str | bytes) -> str:
    file = folder / "batsignal.yml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(file)


def refusal(file: str | None, environment: Mapping[str, str] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        load(file, environment or {})
    text = str(caught.value)
    assert len(text.splitlines()) == 1
    assert SECRET not in text
    # Nor in what a traceback would print beside it.
    assert caught.value.__cause__ is None or SECRET not in str(caught.value.__cause__)
    return text


def good(folder: Path, content: str, environment: Mapping[str, str] | None = None) -> Config:
    config = load(written(folder, content), environment or {})
    for text in (repr(config), str(config), repr(config.servers), str(config.endpoints)):
        assert SECRET not in text
    return config


@pytest.mark.parametrize(("content", "said"), [case[1:] for case in BROKEN], ids=[case[0] for case in BROKEN])
def test_broken_file_gets_one_line_that_names_the_place_and_what_was_expected(
    tmp_path: Path, content: str | bytes, said: str
) -> None:
    file = written(tmp_path, content)
    assert refusal(file) == file + said


def test_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert refusal(f"{tmp_path}/nope.yml") == f"{tmp_path}/nope.yml: cannot be read: No such file or directory"


def test_directory_instead_of_a_file_is_named(tmp_path: Path) -> None:
    assert refusal(str(tmp_path)) == f"{tmp_path}: cannot be read: Is a directory"


def test_file_that_cannot_be_read_is_named() -> None:
    # Nobody can, not even root, for nothing is mapped at the address 0.
    assert refusal("/proc/self/mem") == "/proc/self/mem: cannot be read: Input/output error"


def test_path_through_a_file_is_named(tmp_path: Path) -> None:
    file = written(tmp_path, SERVER)
    assert refusal(f"{file}/x.yml") == f"{file}/x.yml: cannot be read: Not a directory"


def test_dsn_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "dsn").write_bytes(b"\xff\xfe")
    file = written(tmp_path, "servers:\n  - name: db1\n    dsn_file: dsn\n")
    assert (
        refusal(file)
        == f"{file}:3: servers[0].dsn_file: expected a text file in UTF-8, got other bytes in '{tmp_path}/dsn'"
    )


def test_what_the_file_of_a_dsn_says_wrong_is_at_the_line_that_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "dsn").write_text("host=db1 port=none")
    file = written(tmp_path, "servers:\n  - name: db1\n    dsn_file: dsn\n")
    assert refusal(file).startswith(f"{file}:3: servers[0].dsn: expected {A_DSN}, got a text that cannot be read so")


def test_environment_has_no_lines() -> None:
    said = "environment (DATA_SOURCE_NAME): servers[0].dsn: expected a libpq connection string"
    assert refusal(None, {"DATA_SOURCE_NAME": "host=db1 port=none"}).startswith(said)


# -- good files --------------------------------------------------------------------------------------------------------


def test_minimal_file_has_the_defaults_of_the_contract(tmp_path: Path) -> None:
    config = good(tmp_path, SERVER)
    (server,) = config.servers
    assert (server.name, server.dsn.get_secret_value()) == ("db1", DSN)
    assert (server.emergency_dsn, server.pgbouncer_dsn, server.data_directory) == (None, None, None)
    assert server.poll_interval_seconds == 1.0
    assert config.endpoints == ()
    assert config.application_pattern == APPLICATION_PATTERN
    assert config.web.listen_address == LISTEN_ADDRESS == "127.0.0.1:9988"
    assert (config.store.path, config.store.keep_days) == ("batsignal.db", 14)


CONTRACT = f"""
servers:
  - name: db1                         # label `server`
    dsn: {DSN}
    emergency_dsn: null
    pgbouncer_dsn: null
    poll_interval_seconds: 1.0
    data_directory: null
endpoints:
  - name: web
    url: http://probe:{SECRET}@127.0.0.1:8000/healthz
    service: shop
    servers: [db1]
    interval_seconds: 5
    timeout_seconds: 2
application_pattern: '^(?P<service>[^@]+)@(?P<version>.+)$'
web: {{listen_address: '127.0.0.1:9988'}}
store: {{path: batsignal.db, keep_days: 14}}
"""


def test_whole_example_of_the_contract_is_read(tmp_path: Path) -> None:
    config = good(tmp_path, CONTRACT)
    (endpoint,) = config.endpoints
    assert (endpoint.name, endpoint.service_name, endpoint.servers) == ("web", "shop", ("db1",))
    assert (endpoint.interval_seconds, endpoint.timeout_seconds) == (5, 2)
    assert endpoint.url == f"http://probe:{SECRET}@127.0.0.1:8000/healthz"


def test_shipped_example_is_a_good_file() -> None:
    file = Path(__file__).parents[2] / "exporter" / "batsignal.example.yml"
    assert load(str(file), {}).servers


def test_a_store_of_null_keeps_nothing(tmp_path: Path) -> None:
    assert good(tmp_path, f"{SERVER}store: {{path: null}}\n").store.path is None


def test_the_deploy_token_is_read_anew_from_beside_the_config(tmp_path: Path) -> None:
    token_file = tmp_path / "token"
    token_file.write_text("first\n")
    config = good(tmp_path, f"{SERVER}web: {{deploy_token_file: token}}\n")
    for token in ("first", "second"):
        token_file.write_text(f"{token}\n")
        read = config.web.deploy_token()
        assert read is not None
        assert read.get_secret_value() == token
        assert token not in repr(read)
    assert good(tmp_path, SERVER).web.deploy_token() is None


@pytest.mark.parametrize("content", ["", "\n", "two words", "two\nlines", "t\u00f6ken"])
def test_a_deploy_token_that_no_header_can_carry_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "token").write_text(content)
    said = refusal(written(tmp_path, f"{SERVER}web: {{deploy_token_file: token}}\n"))
    assert "web.deploy_token_file: expected one line of printable ASCII without spaces" in said


def test_a_deploy_token_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    said = refusal(written(tmp_path, f"{SERVER}web: {{deploy_token_file: nowhere}}\n"))
    assert "web.deploy_token_file: expected a readable file" in said


def test_service_of_an_endpoint_is_its_name_by_default(tmp_path: Path) -> None:
    assert good(tmp_path, endpoint("url: http://web")).endpoints[0].service_name == "web"


@pytest.mark.parametrize("interval", ["0.2", "60", "1"])
def test_bounds_of_an_interval_are_allowed(tmp_path: Path, interval: str) -> None:
    assert good(tmp_path, server(f"poll_interval_seconds: {interval}")).servers[0].poll_interval_seconds == float(
        interval
    )


@pytest.mark.parametrize("address", [":9988", "[::1]:80", "localhost:0", "0.0.0.0:65535"])
def test_spellings_of_a_listen_address(tmp_path: Path, address: str) -> None:
    assert good(tmp_path, f"{SERVER}web: {{listen_address: '{address}'}}\n").web.listen_address == address


def test_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    assert good(tmp_path, f"\ufeff{SERVER}").servers[0].name == "db1"


def test_dsn_may_come_from_a_file_beside_the_config(tmp_path: Path) -> None:
    (tmp_path / "dsn").write_text(f"{DSN}\n")
    config = good(tmp_path, "servers:\n  - name: db1\n    dsn_file: dsn\n")
    assert config.servers[0].dsn.get_secret_value() == DSN


def test_password_may_come_from_the_environment(tmp_path: Path) -> None:
    environment = {"DB_PASSWORD": SECRET}
    config = good(tmp_path, server(dsn="postgresql://batsignal:${DB_PASSWORD}@db1/postgres"), environment)
    assert config.servers[0].dsn.get_secret_value() == DSN


@pytest.mark.parametrize("empty", ["", " "])
def test_a_variable_that_is_empty_is_no_connection_string(tmp_path: Path, empty: str) -> None:
    file = written(tmp_path, server(dsn="${DB_DSN}"))
    assert (
        refusal(file, {"DB_DSN": empty})
        == f"{file}:3: servers[0].dsn: expected a connection string, got an empty text:"
        " the environment variable is empty"
    )


def test_secrets_print_as_six_stars(tmp_path: Path) -> None:
    config = good(tmp_path, server(f"emergency_dsn: {DSN}"))
    assert str(config.servers[0].dsn) == str(config.servers[0].emergency_dsn) == "******"
    assert "'******'" in repr(config)


def test_shared_parts_may_be_merged(tmp_path: Path) -> None:
    merged = f"servers:\n  - &db {{name: db1, dsn: '{DSN}', poll_interval_seconds: 2}}\n  - {{<<: *db, name: db2}}\n"
    config = good(tmp_path, merged)
    assert [(server.name, server.poll_interval_seconds) for server in config.servers] == [("db1", 2), ("db2", 2)]


# -- the environment ---------------------------------------------------------------------------------------------------


def test_data_source_name_names_one_server_by_its_place() -> None:
    config = load(None, {"DATA_SOURCE_NAME": f"postgresql://u:{SECRET}@db1:5433/postgres"})
    (server,) = config.servers
    assert server.name == "db1:5433"
    assert server.dsn.get_secret_value() == f"postgresql://u:{SECRET}@db1:5433/postgres"


def test_data_source_name_may_be_keywords() -> None:
    assert load(None, {"DATA_SOURCE_NAME": "host=db1 user=u"}).servers[0].name == "db1:5432"


def test_data_source_name_goes_before_its_parts_and_pg_variables() -> None:
    environment = {"DATA_SOURCE_NAME": "host=a", "DATA_SOURCE_URI": "b/postgres", "PGHOST": "c"}
    assert load(None, environment).servers[0].name == "a:5432"


def test_data_source_parts_are_joined_and_quoted() -> None:
    environment = {"DATA_SOURCE_URI": "db1/x?sslmode=disable", "DATA_SOURCE_USER": "b@t", "DATA_SOURCE_PASS": "p/w:d"}
    server = load(None, environment).servers[0]
    assert server.name == "db1:5432"
    assert server.dsn.get_secret_value() == "postgresql://b%40t:p%2Fw%3Ad@db1/x?sslmode=disable"


def test_data_source_parts_may_come_from_files(tmp_path: Path) -> None:
    environment = {}
    for key, value in {"URI": "db1/x", "USER": "bob", "PASS": SECRET}.items():
        (tmp_path / key).write_text(f"{value}\n")
        environment[f"DATA_SOURCE_{key}_FILE"] = str(tmp_path / key)
    assert load(None, environment).servers[0].dsn.get_secret_value() == f"postgresql://bob:{SECRET}@db1/x"


def test_missing_password_file_is_named() -> None:
    environment = {"DATA_SOURCE_URI": "db1/x", "DATA_SOURCE_USER": "bob", "DATA_SOURCE_PASS_FILE": "/no/such/file"}
    expected = "expected a readable file, got '/no/such/file': No such file or directory"
    assert refusal(None, environment) == f"environment (DATA_SOURCE_PASS_FILE): {expected}"


def test_several_data_sources_in_one_variable_are_refused_before_a_password_becomes_a_database_name() -> None:
    expected = "expected one connection string, got several; name several servers in a file: --config.file FILE"
    assert refusal(None, {"DATA_SOURCE_NAME": f"{DSN},{DSN}"}) == f"environment (DATA_SOURCE_NAME): {expected}"


def test_data_source_of_other_bytes_than_utf_8_is_told_without_it() -> None:
    said = refusal(None, {"DATA_SOURCE_NAME": f"postgresql://\udcff:{SECRET}@h/db"})
    assert said.startswith("environment (DATA_SOURCE_NAME): servers[0].dsn: expected a libpq connection string")


def test_data_source_that_libpq_cannot_read_is_told_without_it() -> None:
    said = refusal(None, {"DATA_SOURCE_NAME": f"password={SECRET} nonsense"})
    assert said == (
        f"environment (DATA_SOURCE_NAME): servers[0].dsn: expected {A_DSN}, got a text that cannot be read so"
    )


@pytest.mark.parametrize(
    ("environment", "name"),
    [
        ({"PGHOST": "db1"}, "db1:5432"),
        ({"PGHOST": "/var/run/postgresql", "PGPORT": "5433"}, "/var/run/postgresql:5433"),
        ({"PGHOSTADDR": "10.0.0.4"}, "10.0.0.4:5432"),
        ({"PGUSER": "bob"}, "localhost:5432"),
        ({"PGPORT": "5433"}, "localhost:5433"),
        ({"PGSERVICE": "shop"}, "localhost:5432"),
    ],
)
def test_libpqs_own_variables_name_one_server_and_libpq_reads_them(environment: dict[str, str], name: str) -> None:
    (server,) = load(None, environment).servers
    assert (server.name, server.dsn.get_secret_value()) == (name, "")


@pytest.mark.parametrize("environment", [{}, {"PGPASSWORD": SECRET}, {"DATA_SOURCE_USER": "bob"}, {"PGHOST": ""}])
def test_environment_that_names_no_server_is_told_what_would(environment: dict[str, str]) -> None:
    assert refusal(None, environment) == (
        "no configuration: expected --config.file FILE, or DATA_SOURCE_NAME, or libpq's PG* variables"
        " (PGHOST, PGUSER, ...) in the environment"
    )


@given(password=st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), min_size=6, max_size=20))
@example(password="5432/secret-part")
@example(password="5432?user=secret-part")
@example(password="secret@part")
@example(password="@00000,")
@example(password="secret%zzpart")
@example(password="sec'ret\\part")
def test_password_written_as_it_is_is_read_as_the_password_or_refused_without_it(password: str) -> None:
    spellings = (
        f"postgresql://bob:{password}@db1/shop",
        f"host=db1 user=bob password='{password}' dbname=shop",
        f"host=db1 user=bob password={password} dbname=shop",
        f"postgresql://bob@db1/shop?password={password}",
    )
    for dsn in spellings:
        said = fault(dsn)
        if said is None:
            others = {key: value for key, value in parse_dsn(dsn).items() if key not in {"password", "sslpassword"}}
            pieces = {password[start : start + 6] for start in range(len(password) - 5)}
            assert not any(piece in str(value) for piece in pieces for value in others.values())
        else:
            assert "part" not in said.replace("a part", "")
            assert password not in said


@pytest.mark.parametrize("port", ["notaport", "0", "65536", "5432,x"])
def test_port_of_the_environment_that_is_none_is_named(port: str) -> None:
    said = refusal(None, {"PGHOST": "db1", "PGPORT": port})
    assert said == "environment (PGPORT): expected a number from 1 to 65535"
