import inspect
import sys
import time
import tracemalloc
from contextlib import suppress

import pytest

from stdb.errors import QueryError
from stdb.sql import Caller, compile_one_off, compile_sql, compile_subscription, quote_name, run_sql
from stdb.sql.cursor import PRINTED_AS_KEYWORDS
from stdb.sql.lexer import tokenize
from stdb.sql.parser import TEXT_BYTES_MAX, parse
from stdb.sql.shape import sql_shape, subscription_shape
from tests.subscriptions_world import OWNER, World

CALLER = Caller(OWNER, is_owner=True)


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("select a b from t where a=1and b='it''s'", "SELECT a AS b FROM t WHERE a = 1 AND b = 'it''s'"),
        ("select * from t i for update", "SELECT * FROM t AS i FOR UPDATE"),
        ("select t.* from t join u on t.a==u.b", "SELECT t.* FROM t JOIN u ON t.a = u.b"),
        ("select * from a left outer join b using (x)", "SELECT * FROM a LEFT JOIN b USING(x)"),
        (
            "select a from t order by a desc nulls last limit 1 offset 2 rows",
            "SELECT a FROM t ORDER BY a DESC NULLS LAST LIMIT 1 OFFSET 2 ROWS",
        ),
        ("with recursive x(a) as (values (1),(2)) table_", None),
        ("select distinct on (a) a from t", "SELECT DISTINCT ON (a) a FROM t"),
        ("select a != b, -a * +b + c || d from t", "SELECT a <> b, -a * +b + c || d FROM t"),
        (
            "select sum(distinct a) filter (where b) over (partition by c) from t",
            "SELECT sum(DISTINCT a) FILTER (WHERE b) OVER (PARTITION BY c) FROM t",
        ),
        (
            "select case a when 1 then 2 else 3 end, a::int[], x is not distinct from y from t",
            "SELECT CASE a WHEN 1 THEN 2 ELSE 3 END, CAST(a AS INT[]), x IS NOT DISTINCT FROM y FROM t",
        ),
        (
            "select a not in (1, 2), b not between 1 and 2, c not like 'x' escape 'y' from t",
            "SELECT a NOT IN (1, 2), b NOT BETWEEN 1 AND 2, c NOT LIKE 'x' ESCAPE 'y' FROM t",
        ),
        ("insert into t (a) values (1), (-2)", "INSERT INTO t (a) VALUES (1), (-2)"),
        ("update t set a = 1 where b", "UPDATE t SET a = 1 WHERE b"),
        ("delete from t using u where a", "DELETE FROM t USING u WHERE a"),
        ("set local x to 1", "SET LOCAL x = 1"),
    ],
)
def test_a_statement_prints_as_the_reference_prints_it(text: str, shown: str | None) -> None:
    if shown is None:
        with pytest.raises(QueryError, match="sql parser error"):
            parse(text)
    else:
        assert str(parse(text)) == shown


@pytest.mark.parametrize(
    "text",
    [
        "SELECT a FROM t WHERE a = ANY(1) AND b[1] = 2 AND ARRAY(SELECT 1) = c",
        "SELECT POSITION('a' IN b), CAST(a AS VARCHAR(5)), INTERVAL '1' DAY, EXTRACT(year FROM a) FROM t",
        "SELECT a AT TIME ZONE 'x', a COLLATE c, f(a => 1, t.*), TEXT 'x', current_timestamp(3) FROM t",
        "SELECT a IN (SELECT 1), a IN UNNEST(b), a IS TRUE, count(*) IGNORE NULLS OVER w FROM t",
        "SELECT a FROM t FETCH FIRST 3 PERCENT ROWS WITH TIES FOR SHARE OF t SKIP LOCKED FOR UPDATE NOWAIT",
        "SELECT TOP (3) PERCENT WITH TIES a INTO TEMPORARY x FROM t LATERAL VIEW OUTER f(a) v AS b CLUSTER BY c",
        "SELECT a FROM t GROUP BY ALL HAVING d WINDOW w AS (ORDER BY e) QUALIFY g",
        "SELECT a FROM LATERAL (SELECT 1) AS l, LATERAL f(1) AS m, (VALUES (1)) AS v (x), t WITH (nolock)",
        "SELECT a FROM t NATURAL JOIN u LEFT SEMI JOIN w ON true CROSS JOIN (x JOIN y)",
        "SELECT a FROM t INTERSECT DISTINCT (SELECT b FROM u ORDER BY 1) UNION ALL VALUES (1, 2)",
        "WITH a AS NOT MATERIALIZED (SELECT 1 FROM t), b (x) AS (SELECT 2 FROM t) SELECT * FROM a",
        "SELECT NOT EXISTS (SELECT 1 FROM t), (a, b).c, !!a, a!, a IS NOT TRUE, a SIMILAR TO 'x' FROM t",
        "SELECT CASE WHEN a THEN b END, ARRAY[1, 2], [3], CAST(a AS DOUBLE PRECISION), X'AB' FROM t",
        "INSERT OR REPLACE INTO t VALUES (1)",
        "INSERT INTO TABLE t VALUES (1)",
        "EXPLAIN SELECT a FROM t",
        "SET TIME ZONE 'x'",
        "SET ROLE r",
        "SET TRANSACTION x",
        "UPDATE t SET a = 1 FROM u WHERE b RETURNING c AS d",
    ],
)
def test_what_is_refused_everywhere_is_still_read_and_printed(text: str) -> None:
    assert str(parse(text)) == text
    assert str(parse(text.lower())).lower() == text.lower()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("select 'x", "Unterminated string literal at Line: 1, Column 8"),
        ("select \n /* /* */", "Unexpected EOF while in a multi-line comment at Line: 2, Column 2"),
        ('select "x', "Expected close delimiter '\"' before EOF. at Line: 1, Column 8"),
        ("select * from t where", "Expected an expression:, found: EOF"),
        ("select * from t\nwhere a = = 1", "Expected an expression:, found: = at Line: 2, Column 11"),
        ("select * from t inner x", "Expected JOIN, found: inner at Line: 1, Column 17"),
        ("select * from t natural x", "Expected a join type after NATURAL, found: x at Line: 1, Column 25"),
        ("select * from t outer join x", "Expected LEFT, RIGHT, or FULL, found: outer at Line: 1, Column 17"),
        ("select a from t fetch x", "Expected one of FIRST or NEXT, found: x at Line: 1, Column 23"),
        ("select a from t i for x", "Expected one of UPDATE or SHARE, found: x at Line: 1, Column 23"),
        ("select f(a", "Expected ), found: EOF"),
        ("select f(a) over (a", "Expected ), found: EOF"),
        (
            "insert or x",
            "Expected one of REPLACE or ROLLBACK or ABORT or FAIL or IGNORE, found: x at Line: 1, Column 11",
        ),
        ("select user.x from t", "Expected end of statement, found: . at Line: 1, Column 12"),
    ],
)
def test_a_syntax_error_names_its_place(text: str, message: str) -> None:
    with pytest.raises(QueryError) as refusal:
        parse(text)
    assert str(refusal.value) == f"sql parser error: {message}"


@pytest.mark.parametrize("opening", ["(", "a = 1 or ("])
def test_47_parentheses_are_accepted_and_48_refused(opening: str) -> None:
    def text(count: int) -> str:
        return f"select * from t where {opening * count}a = 1{')' * count}"

    subscription_shape(parse(text(47)))
    with pytest.raises(QueryError) as refusal:
        parse(text(48))
    assert str(refusal.value) == "sql parser error: recursion limit exceeded"


@pytest.mark.parametrize("operator", ["or", "and"])
def test_1600_terms_are_accepted_and_1601_refused(operator: str) -> None:
    def text(count: int) -> str:
        return "select * from t where " + f" {operator} ".join(["a = 1"] * count)

    subscription_shape(parse(text(1600)))
    with pytest.raises(QueryError) as refusal:
        subscription_shape(parse(text(1601)))
    assert str(refusal.value) == "Recursion limit exceeded, `sql-parser::parse_expr`"


def test_50000_bytes_are_accepted_and_one_more_refused() -> None:
    head = "select * from t --"
    parse(head + "x" * (50_000 - len(head)))
    for text in (head + "x" * (50_001 - len(head)), head + "é" * 24_992):
        with pytest.raises(QueryError, match="SQL query exceeds maximum allowed length") as refusal:
            parse(text)
        assert str(refusal.value).endswith(f'"{text[:120]}..."')


@pytest.mark.parametrize("name", sorted(PRINTED_AS_KEYWORDS | {"LATERAL", "VALUES", "UNNEST", "NAÏVE"}))
def test_any_word_may_name_a_table(name: str) -> None:
    shape = subscription_shape(parse(f"select * from {quote_name(name.lower())}"))
    assert shape.table.name == name.lower()


def test_lone_surrogates_are_no_crash() -> None:
    with pytest.raises(QueryError, match="sql parser error"):
        parse("select \ud800 from t")


def test_tokens_know_their_places() -> None:
    tokens = tokenize("a\n  'x''y' /* c */ 0xAB :b")
    assert [(token.text, token.line, token.column) for token in tokens] == [
        ("a", 1, 1),
        ("x'y", 2, 3),
        ("AB", 2, 18),
        (":b", 2, 23),
        ("", 2, 25),
    ]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("select a from t group by a,t.b", "SELECT a FROM t GROUP BY a, t.b"),
        ("select a from t group by all having b", "SELECT a FROM t GROUP BY ALL HAVING b"),
        ("select a from t offset 1 row limit 2", "SELECT a FROM t LIMIT 2 OFFSET 1 ROW"),
        ("select a from t order by a asc, 2 nulls first", "SELECT a FROM t ORDER BY a ASC, 2 NULLS FIRST"),
        ("select count(distinct a) n, Sum(all b) m from t", "SELECT count(DISTINCT a) AS n, Sum(b) AS m FROM t"),
        ("select f(a, b order by c desc) x from t", "SELECT f(a, b ORDER BY c DESC) AS x FROM t"),
        ("select - (a+b)*c ! from t", "SELECT -(a + b) * c! FROM t"),
    ],
)
def test_clauses_with_a_meaning_print_as_before(text: str, shown: str) -> None:
    assert str(parse(text)) == shown


@pytest.mark.parametrize(
    "clause", ["ORDER BY a", "LIMIT 1", "OFFSET 1", "LIMIT 1 OFFSET 2 ROWS", "ORDER BY a DESC LIMIT 1 FOR UPDATE"]
)
def test_subscriptions_refuse_what_follows_a_query_in_the_words_of_the_reference(clause: str) -> None:
    with pytest.raises(QueryError) as refusal:
        subscription_shape(parse(f"select a from t i {clause.lower()}"))
    assert str(refusal.value) == f"Unsupported: SELECT a FROM t AS i {clause}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("select a from t group by a", "Unsupported SELECT: SELECT a FROM t GROUP BY a"),
        ("select sum(a) as n from t", "Unsupported aggregate function: sum(a)"),
        ("select count(distinct a) as n from t", "Unsupported aggregate function: count(DISTINCT a)"),
        ("select sum(a) as n, max(a) as m from t", "Unsupported projection expression: sum(a)"),
        ("select count(a) from t", "Aggregate expressions must have column aliases"),
    ],
)
def test_subscriptions_refuse_groups_and_aggregates_in_the_words_of_the_reference(text: str, message: str) -> None:
    with pytest.raises(QueryError) as refusal:
        subscription_shape(parse(text))
    assert str(refusal.value) == message


# Any text in bounded time.


def _filled(head: str, unit: str, tail: str = "") -> str:
    """Return a text of nearly 50,000 bytes."""
    return head + unit * ((TEXT_BYTES_MAX - len(head) - len(tail)) // len(unit)) + tail


_WHERE = "select * from bag where "
HARD = {
    "subqueries that may be tables": _filled("select * from ", "((select * from "),
    "values that may be tables": _filled("select * from ", "(values ((select * from "),
    "tables in parentheses": _filled("select * from ", "("),
    "types that may be calls": _filled(_WHERE, "int("),
    "strings in dollars without an end": "select " + "".join(f"$a{place}$" for place in range(7_000)),
    "a dollar and a half": _filled("select ", "$a$b"),
    "quotes": _filled("select '", "''"),
    "nested comments": _filled("select ", "/*", "*/"),
    "cases": _filled(_WHERE, "case "),
    "branches of a case": _filled(f"{_WHERE}case", " when a then a", " end"),
    "unions": _filled("select a", " union select a"),
    "unions of subqueries": _filled("select a", " except (select a)"),
    "dots": _filled(_WHERE, "a.", "a"),
    "a long list": _filled(f"{_WHERE}a in (1", ",1", ")"),
    "a long tuple": _filled(f"{_WHERE}(a", ",a", ")"),
    "subscripts": _filled(f"{_WHERE}a", "[1]"),
    "casts": _filled(f"{_WHERE}a", "::int"),
    "patterns": _filled(f"{_WHERE}a", " like a"),
    "sums": _filled(f"{_WHERE}a", "+a*a"),
    "comparisons": _filled(f"{_WHERE}a", "=a"),
    "colons": _filled(_WHERE, ": "),
    "symbols": _filled("", "#"),
    "columns": _filled("select a", ",a", " from bag"),
    "grouped columns": _filled("select a from bag group by a", ",a"),
    "ordered columns": _filled("select a from bag order by a", ",1"),
    "common tables": _filled("with a as (select a)", ",a as (select a)", " select a"),
    "statements": _filled("", "select a from bag;"),
    "joins": "select b.* from bag b" + "".join(f" join bag x{place}" for place in range(3_000)),
    "nines": _filled("select a from bag order by ", "9"),
    "a huge exponent": _filled("select a from bag limit 1e", "9"),
    "a huge literal": _filled(f"{_WHERE}a = ", "9"),
    "a long fraction": _filled(f"{_WHERE}a = 0.", "0", "1"),
    "not": _WHERE + "not " * 10_000 + "a",
    "signs": _filled(_WHERE, "- ", "1"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", HARD)
def test_a_hard_text_is_answered_soon(name: str, world: World) -> None:
    assert 37_000 <= len(HARD[name]) <= TEXT_BYTES_MAX
    start = time.perf_counter()
    for run in (compile_sql, compile_one_off):
        with suppress(QueryError):
            run(HARD[name], world.datastore, CALLER)
    assert time.perf_counter() - start < 5  # 0.4 at most on an idle machine; what this is here to find takes minutes


@pytest.mark.slow
@pytest.mark.parametrize("name", ["columns", "sums", "casts", "statements", "subqueries that may be tables", "symbols"])
def test_a_hard_text_takes_little_memory(name: str) -> None:
    tracemalloc.start()
    try:
        with suppress(QueryError):
            sql_shape(parse(HARD[name]))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 100 << 20


@pytest.mark.parametrize("name", ["a huge exponent", "a huge literal", "not", "nines"])
def test_a_hard_text_is_refused(name: str, world: World) -> None:
    with pytest.raises(QueryError):
        run_sql(HARD[name], world.datastore, CALLER)


_DEEP = [
    *(
        "(",
        "a = 1 or (",
        "a or b and c < (",
        "a or not b and a < a | a ^ a & a xor a + a * - (",
        "f(",
        "array[",
        "cast(",
    ),
    *(
        "case when ",
        "exists (select * from bag where ",
        "a in (select a from bag where ",
        "a or b and c like f(",
        "- ((",
    ),
]


@pytest.mark.parametrize("opening", _DEEP)
@pytest.mark.parametrize("times", [12, 24, 47, 48])
def test_no_nesting_comes_near_the_depth_that_the_interpreter_allows(opening: str, times: int, world: World) -> None:
    closing = {"(": ")", "[": "]"}
    text = f"{_WHERE}{opening * times}true" + "".join(
        closing[letter] for letter in reversed(opening * times) if letter in closing
    )
    here = len(inspect.stack(0))
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(here + 640)
    try:
        for run in (run_sql, compile_one_off, compile_subscription, lambda text, *_: str(parse(text))):
            with suppress(QueryError):
                run(text, world.datastore, CALLER)
    finally:
        sys.setrecursionlimit(before)
