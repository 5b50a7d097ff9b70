import pytest

from stdb.errors import QueryError
from stdb.sql import quote_name
from stdb.sql.cursor import PRINTED_AS_KEYWORDS
from stdb.sql.lexer import tokenize
from stdb.sql.parser import parse
from stdb.sql.shape import subscription_shape


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
