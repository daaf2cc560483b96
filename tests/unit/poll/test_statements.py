import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from batsignal.poll import statements
from batsignal.poll.statements import normalise, read


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("SELECT 1", "SELECT ?"),
        ("SELECT -1, +2.5, .5, 5., 1e10, 1.5E-3, 1e+5", "SELECT -?, +?"),
        ("SELECT 0x1F, 0o17, 0b101, 1_000_000", "SELECT ?"),
        ("SELECT 1.2.3.4", "SELECT ?"),
        ("SELECT 12abc", "SELECT ?"),
        ("SELECT 'a'", "SELECT ?"),
        ("SELECT 'it''s'", "SELECT ?"),
        ("SELECT ''", "SELECT ?"),
        ("SELECT 'two\nlines'", "SELECT ?"),
        ("SELECT 'a'\n  'b'", "SELECT ? ?"),
        (r"SELECT E'it\'s', e'\\', E'a''b'", "SELECT ?"),
        ("SELECT B'101', x'1F', N'name'", "SELECT ?"),
        (r"SELECT U&'d\0061t' UESCAPE '!'", "SELECT ? UESCAPE ?"),
        (r'SELECT U&"d\0061t"', r'SELECT U&"d\0061t"'),
        ("SELECT $$it's$$, $q$a $$ b$q$, $größe$x$größe$", "SELECT ?"),
        ("SELECT $1, $23", "SELECT ?"),
        ("SELECT 1$$hunter2$$", "SELECT ??"),
        ("SELECT typE'hunter2'", "SELECT typE?"),
        ("SELECT date'2024-01-01'", "SELECT date?"),
        ("SELECT a::int4, b[1:2]", "SELECT a::int4, b[?:?]"),
        ("SELECT t1.c2, int8, a$1, _3, straße7", "SELECT t1.c2, int8, a$1, _3, straße7"),
        ('SELECT "x 1", "it\'s", "a""b" FROM "T-2"', 'SELECT "x 1", "it\'s", "a""b" FROM "T-2"'),
        ("SELECT a /* 'hunter2' */ FROM t", "SELECT a FROM t"),
        ("SELECT a /* one /* two */ hunter2 */ FROM t", "SELECT a FROM t"),
        ("SELECT a -- 'hunter2\nFROM t", "SELECT a FROM t"),
        ("SELECT a--hunter2", "SELECT a"),
        ("SELECT a - -1, b / 2, c -> 'k', d ? 'k'", "SELECT a - -?, b / ?, c -> ?, d ? ?"),
        ("SELECT * FROM t WHERE a IN (1, 2, 3) AND b IN ('x','y')", "SELECT * FROM t WHERE a IN (?) AND b IN (?)"),
        ("INSERT INTO t VALUES (1, 'a'), (2, 'b'), ($1, $2)", "INSERT INTO t VALUES (?)"),
        ("  SELECT\n\t1\r\n ;  ", "SELECT ? ;"),
        ("ALTER ROLE bob PASSWORD 'hunter2'", "ALTER ROLE bob PASSWORD ?"),
        ("CREATE USER bob PASSWORD $$hunter2$$ VALID UNTIL 'infinity'", "CREATE USER bob PASSWORD ? VALID UNTIL ?"),
        ("SET app.user = 'hunter2'", "SET app.user = ?"),
        ("", ""),
        ("<insufficient privilege>", "<insufficient privilege>"),
    ],
)
def test_literal_is_a_question_mark_and_the_rest_stays(written: str, shown: str) -> None:
    assert normalise(written) == shown


@pytest.mark.parametrize(
    "written",
    [
        "SELECT 'hunter2",
        "SELECT 'it''s hunter2",
        "SELECT E'hunter2\\",
        "SELECT E'it\\'s hunter2",
        "SELECT U&'hunter2",
        "SELECT $$hunter2",
        "SELECT $a$hunter2$b$",
        "SELECT $a$hunter2$",
        "SELECT /* hunter2",
        "SELECT /* /* */ hunter2",
        "SELECT -- hunter2",
    ],
)
def test_statement_that_was_cut_within_a_literal_hides_all_from_there_on(written: str) -> None:
    assert normalise(written) in {"SELECT", "SELECT ?"}


@pytest.mark.parametrize(
    "written",
    [
        r"SELECT 'it\'s hunter2' FROM t",
        r"SELECT 'it\'s', 'hunter2' FROM t",
        r"SELECT 'C:\', 'hunter2' FROM t",
        r"SELECT 'a\''hunter2' FROM t",
        r"SELECT N'a\\\'hunter2' FROM t",
    ],
)
def test_backslash_before_a_quote_hides_the_rest_for_it_may_or_may_not_end_the_string(written: str) -> None:
    assert normalise(written) == "SELECT ?"


def test_backslashes_in_pairs_end_no_string_in_either_reading() -> None:
    assert normalise(r"SELECT 'a\\', b") == "SELECT ?, b"


def test_long_statement_is_cut_at_a_thousand_characters() -> None:
    assert len(normalise("SELECT " + ", ".join(f"column_{n}" for n in range(500)))) <= 1000


def test_lists_of_any_length_look_the_same() -> None:
    assert normalise("SELECT a IN (1)") == normalise(f"SELECT a IN ({', '.join('7' * n for n in range(1, 60))})")


@pytest.mark.parametrize(
    "piece",
    [
        *"'\"\\$?(.-/*1aeE_ \n",
        *("e'", "E'\\", "$$", "$a", "$a$", "/*", "*/", "1e", "1e+", "?,", "(?),", "''", "\\'", "u&'"),
        *("n'", "--", "a$", "'\\\\", '""', "1.", "_$", "é", "/*/", "$a$b", "x'", ". "),
    ],
)
@pytest.mark.parametrize("end", ["", "'", "\\", '"', "$$"])
def test_no_text_of_four_kilobytes_takes_long(piece: str, end: str) -> None:
    text = piece * (4096 // len(piece)) + end
    began = time.process_time()
    normalise(text)
    assert time.process_time() - began < 1


LITERALS = st.sampled_from(
    [
        "'{}'",
        "'a''{}'",
        "E'{}'",
        r"e'\'{}\\'",
        "N'{}'",
        "U&'{}'",
        "$${}$$",
        "$tag$ ' {} $tag$",
        "/* {} */",
        "/* /* ' */ {} */",
        "-- {}\n",
        "12345{}",
        "$1$${}$$",
        r"'\'{}'",
    ]
)
# What may stand around a literal. Each leaves the scanner between two tokens, as SQL does.
PIECES = st.sampled_from(
    [
        "SELECT ",
        " FROM t",
        ", ",
        "(",
        ")",
        " a = ",
        ' "quo""ted" ',
        "'x'",
        " 1 ",
        " $1",
        "\n",
        ";",
        " e ",
        "::int4",
        " - ",
    ]
)


@given(before=st.lists(PIECES), literal=LITERALS, after=st.lists(PIECES), cut=st.integers(0, 60))
@example(before=["'x'"], literal="$1$${}$$", after=[], cut=0)
def test_nothing_of_a_planted_literal_is_left_wherever_the_text_is_cut(
    before: list[str], literal: str, after: list[str], cut: int
) -> None:
    planted = "".join(before) + " " + literal.format("XSECRETX") + " " + "".join(after)
    shown = normalise(planted[: max(len(planted) - cut, 0)])
    assert "SECRET" not in shown
    assert "SEC" not in shown


@given(st.text(alphabet="'\"\\$/*-eEuU&nN.,()? \n1aZ_é", max_size=200))
def test_any_text_gives_one_line_without_a_literals_digit(text: str) -> None:
    shown = normalise(text)
    assert "\n" not in shown
    assert shown == shown.strip()
    assert len(shown) <= 1000


@given(st.text(max_size=300))
def test_no_text_at_all_is_an_error(text: str) -> None:
    normalise(text)


# -- the code path -----------------------------------------------------------------------------------------------------


def tagged(statement: str, trace: int = 1) -> str:
    return f"{statement} /*action='show',controller='users',traceparent='00-{trace:032x}-01'*/"


def test_code_path_is_read_and_the_statement_is_what_it_is_without() -> None:
    assert read(tagged("SELECT * FROM users WHERE id = 7")) == (
        "SELECT * FROM users WHERE id = ?",
        "controller=users action=show",
    )
    assert read("/*controller='users'*/ SELECT 1") == ("SELECT ?", "controller=users")
    assert read("SELECT 1 /*controller='users'*/;") == ("SELECT ? ;", "controller=users")
    assert read("SELECT 1") == ("SELECT ?", None)


@pytest.mark.parametrize(
    "text",
    [
        "INSERT INTO log VALUES ('x /*controller=''hunter2''*/",
        "INSERT INTO log VALUES ($$x /*controller='hunter2'*/",
        "INSERT INTO log VALUES ($a$x /*controller='hunter2'*/",
        r"INSERT INTO log VALUES (E'x\' /*controller=hunter2*/",
        r"INSERT INTO log VALUES ('x\', ' /*controller=''hunter2''*/",
        "SELECT \"x /*controller='hunter2'*/",
        "SELECT 1 -- x /*controller='hunter2'*/",
        "SELECT 1 /* x /*controller='hunter2'*/",
        "SELECT U&'x /*controller=''hunter2''*/",
        "SELECT B'1 /*controller=''hunter2''*/",
    ],
)
def test_what_looks_like_tags_within_a_literal_a_name_or_a_comment_is_not_read(text: str) -> None:
    assert read(text) == (normalise(text), None)


@given(
    st.lists(PIECES | LITERALS.map(lambda literal: literal.format("x")), max_size=8),
    st.sampled_from(["", ";", " ; ", "\n"]),
    st.integers(0, 80),
)
def test_tags_change_nothing_of_the_statement(pieces: list[str], after: str, cut: int) -> None:
    text = tagged("".join(pieces)) + after
    assert read(text)[0] == normalise(text)
    shorter = text[: max(len(text) - cut, 0)]
    assert read(shorter)[0] == normalise(shorter)


@given(st.text(alphabet="'\"\\$/*-eEU&N.,()? 1a_=:", max_size=80))
def test_tags_change_nothing_of_any_text(text: str) -> None:
    for one in (text, f"{text} /*action='x'*/", f"/*action='x'*/{text}"):
        assert read(one)[0] == normalise(one)


def test_traces_that_differ_do_not_empty_the_cache() -> None:
    statements._outside.cache_clear()
    for trace in range(500):
        read(tagged("SELECT * FROM users WHERE id = $1", trace))
    assert statements._outside.cache_info().misses == 1
