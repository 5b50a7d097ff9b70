"""Row-level security: what a rule may be, what it makes of a query, who sees what."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stdb.datastore.datastore import Datastore
from stdb.datastore.log import MemoryLog
from stdb.datastore.records import Context, encode
from stdb.datastore.recovery import recover
from stdb.errors import QueryError, SchemaError
from stdb.sats.types import STRING, U8
from stdb.schema import raw
from stdb.schema.model import Access, RowLevelSecurityDef
from stdb.schema.validation import validate
from stdb.sql import Caller, binder, changes, compile_one_off, compile_sql, run_sql, shape
from stdb.sql.binder import BoundSelect, BoundStar, Comparison, Conjunction, Constant, Position, Typed, bind_select
from stdb.sql.parser import parse
from stdb.sql.rules import BRANCHES_MAX, DEPTH_MAX, NODES_MAX, TEXT_MAX, check_rules, expand, replace_rules
from stdb.sql.work import finish
from stdb.subscriptions import Registry, SubscriptionActor
from tests.datastore_samples import make_module, make_table
from tests.rules_town import (
    ALICE,
    BOB,
    LETTERS_TO,
    OWN_LETTERS,
    OWN_PERSON,
    ROOMS_OF_STAY,
    ROOMS_OF_VAULT,
    fill,
    town,
    town_definition,
)
from tests.schema_samples import vector
from tests.sql_schemas import IDENTITIES, OWNER, cases, datastore_of, plain, recorded_texts, rules_of, sql_of

# ---------------------------------------------------------------------- the vectors

_RAN = ("ran-sub-118", "ran-sub-119", "ran-sub-121", "ran-sub-122")
CASES = {case["id"]: case for case in cases()["cases"] if case["schema"] == "guild" or case["id"] in _RAN}
RESULTS = {case["id"]: case for case in cases()["result_cases"] if case["schema"] == "guild"}
_RECORDED = Path(__file__).parent / "vectors" / "recorded_sql" / "vectors_run.json"
RECORDED = {each["id"]: each for each in json.loads(_RECORDED.read_text())["results"] if each["id"] in RESULTS}


def caller_of(case: dict[str, Any]) -> Caller:
    if "caller_identity" in case:
        return Caller(bytes.fromhex(case["caller_identity"])[::-1], is_owner=False)
    identity = IDENTITIES[case["caller"]]
    return Caller(identity, identity == OWNER)


def subscribe(datastore: Datastore, identity: bytes, way: str, text: str) -> None:
    actor = SubscriptionActor(Registry(datastore, OWNER), identity)
    if way == "multi":
        finish(actor.subscribe_multi(1, [text]))
    else:
        finish(actor.subscribe_single(1, text))


def test_the_vectors_are_all_there() -> None:
    assert sorted(CASES) == [*_RAN, *(f"rls-00{number}" for number in range(1, 8))]
    assert len(RESULTS) == len(RECORDED) == 25
    assert [len(rules_of(schema)) for schema in ("guild", "kitchen", "shop")] == [5, 1, 0]


@pytest.mark.parametrize("case_id", CASES)
def test_a_case_is_answered_as_by_the_real_server(case_id: str) -> None:
    case = CASES[case_id]
    datastore, text = datastore_of(case["schema"]), sql_of(case)
    if case["surface"] == "sql":
        assert case["result"] == "accept"
        run_sql(text, datastore, caller_of(case))
        return
    ways = ("multi", "single") if "batch" not in case else (("single", "multi")[case["batch"]],)
    for way in ways:
        if case["result"] == "accept":
            subscribe(datastore, caller_of(case).identity, way, text)
            continue
        with pytest.raises(QueryError) as refusal:
            subscribe(datastore, caller_of(case).identity, way, text)
        assert case["error_contains"] in str(refusal.value)
        if case_id in recorded_texts():
            assert str(refusal.value) == recorded_texts()[case_id][way]


@pytest.mark.parametrize("case_id", RESULTS)
def test_a_result_has_its_rows(case_id: str) -> None:
    case, recorded = RESULTS[case_id], RECORDED[case_id]
    assert (case["sql"], Counter(map(str, case["rows_bag"]))) == (recorded["sql"], Counter(map(str, recorded["rows"])))
    datastore, caller = datastore_of("guild"), caller_of(case)
    result = run_sql(case["sql"], datastore, caller)
    wanted = Counter(plain(result.row_type, row) for row in case["rows_bag"])
    assert Counter(result.rows) == wanted
    if "count" not in case["sql"]:
        plan = compile_one_off(case["sql"], datastore, caller)
        assert Counter(map(plan.table.schema.codec.decode_exact, plan.rows())) == wanted


# ---------------------------------------------------------------------- branches


def bound(datastore: Datastore, text: str, identity: bytes = ALICE) -> BoundSelect:
    parsed = shape.sql_shape(parse(text))
    assert isinstance(parsed, shape.SelectShape)
    return bind_select(parsed, datastore, Caller(identity, is_owner=False))


def expanded(datastore: Datastore, text: str, identity: bytes = ALICE) -> list[BoundSelect]:
    return expand(bound(datastore, text, identity), datastore, Caller(identity, is_owner=False))


def shown(select: BoundSelect) -> str:
    """Return a branch as SQL, so that a test reads."""

    def name(position: Position) -> str:
        relation = select.relations[position.relation]
        column = relation.table.schema.definition.columns[position.column]
        assert column.type == position.type
        return f"{relation.alias}.{column.name}"

    def typed(value: Typed) -> str:
        match value:
            case Position():
                return name(value)
            case Constant(key):
                return {ALICE[::-1]: ":alice", BOB[::-1]: ":bob"}.get(key, repr(key))
            case Comparison(first, rest):
                return " ".join([typed(first), *(f"{operator} {typed(operand)}" for operator, operand in rest)])
            case Conjunction(is_and, terms):
                return f"({(' and ' if is_and else ' or ').join(map(typed, terms))})"
        raise AssertionError(value)

    assert isinstance(select.projection, BoundStar)
    tables = [f"{relation.table.schema.name} {relation.alias}" for relation in select.relations]
    text = f"{select.relations[select.projection.relation].alias}.* from {tables[0]}"
    for table, on in zip(tables[1:], select.joins, strict=True):
        text += f" join {table}" + ("" if on is None else f" on {name(on[0])} = {name(on[1])}")
    return text if select.where is None else f"{text} where {typed(select.where)}"


def test_the_owner_is_untouched() -> None:
    datastore = town(OWN_LETTERS)
    select = bound(datastore, "select * from letter")
    assert expand(select, datastore, Caller(OWNER, is_owner=True)) == [select]
    assert expand(select, datastore, Caller(OWNER, is_owner=True))[0] is select


@pytest.mark.parametrize("rules", [(), (OWN_LETTERS,)])
def test_a_query_without_protected_tables_is_untouched(rules: tuple[str, ...]) -> None:
    datastore = town(*rules)
    select = bound(datastore, "select p.* from person p join room r where p.who = :sender")
    (branch,) = expand(select, datastore, Caller(ALICE, is_owner=False))
    assert branch is select
    assert not expanded(datastore, "select * from room")[0].is_parameterised


def test_a_rule_filters_the_table_it_returns() -> None:
    datastore = town(OWN_LETTERS)
    (branch,) = expanded(datastore, "select * from letter")
    assert shown(branch) == "letter.* from letter letter where letter.by = :alice"
    assert branch.is_parameterised
    (branch,) = expanded(datastore, "select * from letter l where id > 3 and id < 9", BOB)
    assert shown(branch) == "l.* from letter l where (l.by = :bob and l.id > 3 and l.id < 9)"
    (branch,) = expanded(datastore, "select * from letter where id = 3 or id = 4")
    assert shown(branch) == (
        "letter.* from letter letter where (letter.by = :alice and (letter.id = 3 or letter.id = 4))"
    )


def test_a_rule_without_a_condition_changes_nothing_but_the_bag() -> None:
    datastore = town("SELECT * FROM letter", "SELECT l.* FROM letter l")
    branches = expanded(datastore, "select * from letter where id = 1")
    assert [shown(branch) for branch in branches] == ["letter.* from letter letter where letter.id = 1"] * 2
    assert not any(branch.is_parameterised for branch in branches)


def test_two_rules_are_two_branches_and_one_that_asks_who_marks_both() -> None:
    datastore = town(OWN_LETTERS, "SELECT * FROM letter WHERE id = 0")
    branches = expanded(datastore, "select * from letter")
    assert [shown(branch) for branch in branches] == [
        "letter.* from letter letter where letter.by = :alice",
        "letter.* from letter letter where letter.id = 0",
    ]
    assert all(branch.is_parameterised for branch in branches)


def test_the_same_text_twice_is_one_rule() -> None:
    datastore = town(OWN_LETTERS, OWN_LETTERS)
    assert len(expanded(datastore, "select * from letter")) == 1


def test_both_sides_of_a_self_join_are_filtered_each_under_its_name() -> None:
    datastore = town(OWN_PERSON)
    (branch,) = expanded(datastore, "select a.* from person a join person b on a.boss = b.who")
    assert shown(branch) == (
        "a.* from person a join person b where (a.who = :alice and b.who = :alice and a.boss = b.who)"
    )


def test_a_rule_sees_its_own_table_whole() -> None:
    datastore = town("SELECT p.* FROM person p JOIN person q ON p.boss = q.who WHERE q.boss = :sender")
    (branch,) = expanded(datastore, "select * from person")
    assert (
        shown(branch) == "person.* from person person join person q_1 on person.boss = q_1.who where q_1.boss = :alice"
    )


def test_a_protected_table_at_the_left_keeps_the_joins() -> None:
    datastore = town(ROOMS_OF_VAULT)
    (branch,) = expanded(datastore, "select s.* from room r join stay s on r.id = s.room where s.who = :sender")
    assert shown(branch) == (
        "s.* from room r join vault vault_1 on r.id = vault_1.room join stay s on r.id = s.room "
        "where (vault_1.who = :alice and s.who = :alice)"
    )


def test_a_protected_table_at_the_right_is_crossed_and_its_on_becomes_a_condition() -> None:
    datastore = town(ROOMS_OF_STAY)
    (branch,) = expanded(datastore, "select r.* from stay v join room r on v.room = r.id")
    assert shown(branch) == (
        "r.* from stay v join stay s_1 join room r on s_1.room = r.id where (s_1.who = :alice and v.room = r.id)"
    )
    (branch,) = expanded(datastore, "select r.* from stay v join room r")
    assert shown(branch) == "r.* from stay v join stay s_1 join room r on s_1.room = r.id where s_1.who = :alice"


def test_rules_within_rules_are_put_in() -> None:
    datastore = town(OWN_PERSON, "SELECT l.* FROM person p JOIN letter l ON p.who = l.by")
    (branch,) = expanded(datastore, "select * from letter")
    assert shown(branch) == (
        "letter.* from person p_1 join letter letter on p_1.who = letter.by where p_1.who = :alice"
    )
    assert branch.is_parameterised


def test_several_rules_of_several_tables_are_all_combinations() -> None:
    datastore = town(OWN_LETTERS, LETTERS_TO, ROOMS_OF_STAY, "SELECT * FROM room WHERE id = 0", OWN_PERSON)
    branches = expanded(datastore, "select l.* from letter l join room r join stay s")
    assert len(set(map(shown, branches))) == 4
    assert len(expanded(datastore, "select l.* from letter l join letter m join room r join person p")) == 8


def test_aliases_in_a_branch_are_unique() -> None:
    datastore = town(ROOMS_OF_STAY)
    (branch,) = expanded(datastore, "select s_1.* from room s_1 join room s join room s_2")
    aliases = [relation.alias for relation in branch.relations]
    assert len(aliases) == len(set(aliases)) == 6
    assert {"s_1", "s", "s_2"} < set(aliases)


def test_what_stands_behind_the_rows_is_for_the_branchs_own_relations() -> None:
    datastore = town(ROOMS_OF_STAY)
    (branch,) = expanded(
        datastore, "select r.name, count(*) as n from room r group by r.name order by r.name desc limit 3 offset 2"
    )
    moved = Position(1, 1, STRING)
    assert branch.grouping == (moved,)
    assert [each.by for each in branch.ordering if isinstance(each.by, Position)] in ([], [moved])
    assert (branch.limit, branch.offset) == (3, 2)
    assert f"Position(relation=1, column=1, type={STRING!r})" in repr(branch.projection)
    assert "relation=0" not in repr((branch.projection, branch.grouping, branch.ordering))
    (branch,) = expanded(datastore, "select r.name, r.id from room r order by r.name limit 1")
    assert "relation=0" not in repr((branch.projection, branch.ordering))


def test_only_positions_and_stars_name_a_relation() -> None:
    """What else names one would not move with it."""
    naming = {
        value.__name__
        for module in (binder, shape, changes)
        for value in vars(module).values()
        if isinstance(value, type) and "relation" in getattr(value, "__annotations__", {})
    }
    assert naming == {"Position", "BoundStar"}


# ---------------------------------------------------------------------- what is refused


def findings(*rules: str) -> dict[str, str]:
    """Return what is wrong with rules of the town, in both ways of asking."""
    datastore = Datastore()
    transaction = datastore.begin(0)
    datastore.create_tables(town_definition())
    wrong = check_rules(town_definition(*rules))
    if wrong:
        with pytest.raises(SchemaError) as refusal:
            replace_rules(datastore, map(RowLevelSecurityDef, rules))
        assert refusal.value.errors == list(wrong.values())
    else:
        replace_rules(datastore, map(RowLevelSecurityDef, rules))
    transaction.rollback()
    assert datastore.rules == {}
    prefix = "failed to create row-level security: `{}`: "
    assert all(text.startswith(prefix.format(rule)) for rule, text in wrong.items())
    return {rule: text.removeprefix(prefix.format(rule)) for rule, text in wrong.items()}


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        (
            "SELECT * FROM vault",
            "Cannot define RLS rule on private table: vault. "
            "Please make table public if you wish to restrict access using RLS.",
        ),
        (
            "SELECT * FROM st_module",
            "Cannot define RLS rule on private table: st_module. "
            "Please make table public if you wish to restrict access using RLS.",
        ),
        ("SELECT * FROM letters", "no such table: `letters`. If the table exists, it may be marked private."),
        ("SELECT * FROM letter WHERE who = :sender", "`who` is not in scope"),
        (
            "SELECT * FROM letter WHERE id = :sender",
            "Unexpected type: (expected) (__identity__: U256) != U64 (inferred)",
        ),
        (
            "SELECT id FROM letter",
            "Column projections are not supported in subscriptions; Subscriptions must return a table type",
        ),
        (
            "SELECT COUNT(*) AS n FROM letter",
            "Column projections are not supported in subscriptions; Subscriptions must return a table type",
        ),
        ("SELECT * FROM letter LIMIT 1", "Unsupported: SELECT * FROM letter LIMIT 1"),
        ("DELETE FROM letter", "Unsupported: Non-SELECT queries"),
        ("SELECT * FROM letter; SELECT * FROM room", "Multiple SQL statements are not supported"),
        ("SELECT * FROM letter JOIN room", "SELECT * is not supported for joins"),
        ("  ", "Empty SQL query"),
        ("hello", "sql parser error: Expected an SQL statement, found: hello at Line: 1, Column 1"),
    ],
)
def test_a_rule_that_is_none_is_refused_with_its_text(rule: str, text: str) -> None:
    assert findings(rule) == {rule: text}
    assert findings(OWN_LETTERS, rule, ROOMS_OF_STAY) == {rule: text}


@pytest.mark.parametrize(
    "rule",
    [
        "SELECT r.* FROM vault v JOIN room r ON v.room = r.id",
        "SELECT r.* FROM vault v JOIN room r",
        "SELECT r.* FROM room r JOIN stay s ON r.id = s.room JOIN vault v",
        "SELECT * FROM ping WHERE to = :sender",
        "SELECT * FROM room WHERE name = 'x' OR name = 'y'",
        "SELECT * FROM st_table WHERE table_id > 4095",
    ],
)
def test_a_rule_needs_no_index_and_may_read_private_tables(rule: str) -> None:
    assert findings(rule) == {}


@pytest.mark.parametrize("rule", ["\ud800", "SELECT * FROM letter -- \udfff"])
def test_a_rule_that_no_answer_can_hold_is_refused(rule: str) -> None:
    (text,) = check_rules(town_definition(rule)).values()
    text.encode()
    shown = rule.encode(errors="replace").decode()
    wanted = "The text holds a lone surrogate, which UTF-8 cannot write"
    assert text == f"failed to create row-level security: `{shown}`: {wanted}"


PUBLISHED = {case["case"]: case for case in vector("72_validation")["cases"] if case["case"].startswith("rls ")}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_definition_gets_the_recorded_answer(name: str) -> None:
    definition = validate(raw.decode(bytes.fromhex(PUBLISHED[name]["definition_hex"])))
    wrong = check_rules(definition)
    assert (" ".join(wrong.values()) or "ok") == PUBLISHED[name]["body"]
    assert len(PUBLISHED) == 5


def test_rules_that_need_each_other_are_refused_each() -> None:
    first, second = "SELECT p.* FROM person p JOIN letter l", "SELECT l.* FROM letter l JOIN person p"
    third = "SELECT r.* FROM room r JOIN person p"
    ids = {table.schema.name: table.schema.id for table in town().tables.values()}

    def cyclic(name: str) -> str:
        return f"Discovered cyclic dependency when resolving RLS rules for table id `{ids[name]}`"

    assert findings(first, second) == {first: cyclic("person"), second: cyclic("letter")}
    assert findings(third, first, second) == {
        third: cyclic("person"),
        first: cyclic("person"),
        second: cyclic("letter"),
    }


def test_a_cycle_that_is_stored_all_the_same_ends_and_says_nothing() -> None:
    datastore = town()
    transaction = datastore.begin(0)
    person, letter = datastore.table("person").schema.id, datastore.table("letter").schema.id
    datastore.catalog.replace_rules(
        [(person, "SELECT p.* FROM person p JOIN letter l"), (letter, "SELECT l.* FROM letter l JOIN person p")]
    )
    transaction.commit()
    assert_broken(datastore, "select * from person")
    assert len(expanded(datastore, "select * from room")) == 1


def assert_broken(datastore: Datastore, text: str) -> None:
    """Check that nobody but the owner gets an answer, and nobody learns what the rule says."""
    for run in (run_sql, compile_one_off):
        with pytest.raises(QueryError) as refusal:
            run(text, datastore, Caller(ALICE, is_owner=False))
        assert str(refusal.value) == (
            "The row-level security rules of this database cannot be applied; its owner has to publish them again"
        )
    run_sql(text, datastore, Caller(OWNER, is_owner=True))


@pytest.mark.parametrize("change", ["dropped", "another"])
def test_a_rule_that_no_longer_fits_shows_nothing(change: str) -> None:
    datastore = town(ROOMS_OF_VAULT)
    transaction = datastore.begin(0)
    if change == "dropped":
        datastore.catalog.drop_table(datastore.table("vault"))
    else:
        datastore.catalog.replace_rules([(datastore.table("room").schema.id, "SELECT * FROM stay")])
    transaction.commit()
    assert_broken(datastore, "select * from room")


def test_rules_are_checked_again_when_tables_have_changed() -> None:
    datastore = town(ROOMS_OF_VAULT, OWN_LETTERS)
    transaction = datastore.begin(0)
    datastore.catalog.drop_table(datastore.table("vault"))
    datastore.catalog.set_access(datastore.table("letter"), Access.PRIVATE)
    with pytest.raises(SchemaError) as refusal:
        replace_rules(datastore, map(RowLevelSecurityDef, (ROOMS_OF_VAULT, OWN_LETTERS)))
    assert refusal.value.errors == [
        f"failed to create row-level security: `{ROOMS_OF_VAULT}`: "
        "no such table: `vault`. If the table exists, it may be marked private.",
        f"failed to create row-level security: `{OWN_LETTERS}`: Cannot define RLS rule on private table: letter. "
        "Please make table public if you wish to restrict access using RLS.",
    ]
    transaction.rollback()
    assert len(datastore.rules) == 2


# ---------------------------------------------------------------------- bounds


def joined(table: str, times: int) -> str:
    return f"select a0.* from {table} a0" + "".join(f" join {table} a{place}" for place in range(1, times))


def test_a_query_has_so_many_branches_and_no_more() -> None:
    datastore = town(*(f"SELECT * FROM room WHERE id = {number}" for number in range(10)))
    assert len(expanded(datastore, joined("room", 3))) == BRANCHES_MAX
    text = f"Row-level security makes this query 10000 alternatives, at most {BRANCHES_MAX} are possible"
    with pytest.raises(QueryError, match=text):
        expanded(datastore, joined("room", 4))
    with pytest.raises(QueryError, match="alternatives, at most"):
        expanded(datastore, joined("room", 1000))


def test_the_branches_of_a_query_have_so_many_parts_and_no_more() -> None:
    datastore = town(*(f"SELECT * FROM room WHERE id = {number}" for number in range(10)))
    condition = " or ".join(["a0.id = 5"] * 1000)
    assert len(expanded(datastore, f"{joined('room', 1)} where {condition}")) == 10
    with pytest.raises(QueryError, match=f"parts, at most {NODES_MAX} are possible: ask for fewer tables"):
        expanded(datastore, f"{joined('room', 3)} where {condition}")


def _chained(length: int, rule: str) -> dict[str, str]:
    """Return what is wrong with tables each of whose rules needs the next table."""
    tables = [replace(make_table(f"t{place}", {"a": U8}), access=Access.PUBLIC) for place in range(length)]
    rules = [RowLevelSecurityDef(rule.format(place, place + 1)) for place in range(length - 1)]
    last = RowLevelSecurityDef(f"SELECT * FROM t{length - 1}")
    return check_rules(replace(make_module(*tables), row_level_security=(*rules, last)))


def test_rules_stand_so_deep_within_each_other_and_no_deeper() -> None:
    rule = "SELECT t{0}.* FROM t{0} JOIN t{1}"
    assert _chained(DEPTH_MAX, rule) == {}
    (text,) = _chained(DEPTH_MAX + 1, rule).values()
    assert text.endswith(f"More than {DEPTH_MAX} row-level security rules need each other: shorten their chain")


def test_rules_that_double_each_time_are_refused_soon() -> None:
    wrong = _chained(40, "SELECT t{0}.* FROM t{0} JOIN t{1} x JOIN t{1} y")
    assert len(wrong) > 20
    assert all(f"The row-level security rules have more than {NODES_MAX} parts" in text for text in wrong.values())


def test_a_table_has_so_many_rules_and_no_more() -> None:
    rules = [f"SELECT * FROM room WHERE id = {number}" for number in range(BRANCHES_MAX + 1)]
    assert findings(*rules[:-1]) == {}
    assert list(findings(*rules)) == [rules[-1]]


def test_rules_are_so_long_and_no_longer() -> None:
    rule = RowLevelSecurityDef(f"SELECT * FROM room /*{' ' * 40_000}*/")
    rules = [replace(rule, sql=f"{rule.sql}{' ' * number}") for number in range(25)]
    with pytest.raises(SchemaError, match=f"characters, at most {TEXT_MAX} together"):
        check_rules(replace(town_definition(), row_level_security=tuple(rules)))


# ---------------------------------------------------------------------- nothing leaks


@pytest.mark.parametrize(
    "text",
    [
        "select * from vault",
        "select r.* from room r join vault v on r.id = v.room",
        "select v.* from room r join vault v on r.id = v.room",
        "select r.* from vault v join room r on r.id = v.room where v.room = 1",
    ],
)
def test_a_private_table_is_not_there_for_others_though_a_rule_reads_it(text: str) -> None:
    for datastore in (town(), town(ROOMS_OF_VAULT)):
        for run in (run_sql, compile_sql, compile_one_off):
            with pytest.raises(QueryError) as refusal:
                run(text, datastore, Caller(ALICE, is_owner=False))
            assert str(refusal.value) == "no such table: `vault`. If the table exists, it may be marked private."
        with pytest.raises(QueryError, match="no such table: `vault`"):
            subscribe(datastore, ALICE, "multi", text)


@pytest.mark.parametrize("column", ["vault_1.who", "vault.room", "room_1.id", "s_1.who"])
def test_the_relations_of_a_rule_are_not_in_scope(column: str) -> None:
    datastore = town(ROOMS_OF_VAULT)
    with pytest.raises(QueryError, match="is not in scope"):
        run_sql(f"select * from room where {column} = :sender", datastore, Caller(ALICE, is_owner=False))


def test_counts_and_columns_are_of_the_rows_that_the_caller_sees() -> None:
    datastore = town(ROOMS_OF_VAULT, OWN_LETTERS, LETTERS_TO)
    fill(
        datastore,
        room=[(1, "a"), (2, "b"), (3, "c")],
        vault=[(ALICE, 1), (BOB, 1), (BOB, 2), (OWNER, 3)],
        letter=[(1, ALICE, BOB), (2, ALICE, ALICE), (3, BOB, OWNER)],
    )

    def seen(identity: bytes, text: str) -> list[tuple[Any, ...]]:
        return sorted(run_sql(text, datastore, Caller(identity, identity == OWNER)).rows)

    names = "select name from room"
    assert [seen(who, names) for who in (ALICE, BOB, OWNER)] == [
        [("a",)],
        [("a",), ("b",)],
        [("a",), ("b",), ("c",)],
    ]
    count = "select count(*) as n from letter"
    assert [seen(who, count) for who in (ALICE, BOB, OWNER, bytes(32))] == [[(3,)], [(2,)], [(3,)], [(0,)]]
    assert seen(ALICE, "select id from letter") == [(1,), (2,), (2,)]
    assert seen(ALICE, "select count(*) as n from letter limit 0") == []
    assert seen(ALICE, "select id from letter order by id desc limit 2") == [(2,), (2,)]
    assert seen(ALICE, "select id from letter order by id limit 1 offset 1") == [(2,)]
    assert seen(ALICE, "select id, count(*) as n, max(id) as m from letter group by id") == [(1, 1, 1), (2, 2, 2)]
    assert seen(BOB, "select sum(id) as s from letter") == [(4,)]
    assert seen(ALICE, "select r.name, count(*) as n from stay s join room r group by r.name") == []
    pairs = "select l.id, r.name from letter l join room r on l.id = r.id"
    assert [seen(who, pairs) for who in (ALICE, BOB)] == [[(1, "a")], [(1, "a")]]
    assert seen(OWNER, pairs) == [(1, "a"), (2, "b"), (3, "c")]


# ---------------------------------------------------------------------- restart


def test_rules_are_in_force_after_a_restart() -> None:
    log, datastore = MemoryLog(), Datastore()
    transaction = datastore.begin(0)
    datastore.create_tables(town_definition())
    replace_rules(datastore, map(RowLevelSecurityDef, (OWN_LETTERS, ROOMS_OF_VAULT)))
    delta = transaction.commit()
    assert delta is not None
    log.append_nowait([encode(delta, Context("init", OWNER, None, 0))])
    delta = fill(datastore, letter=[(1, ALICE, BOB), (2, BOB, ALICE)])
    log.append_nowait([encode(delta, Context("send", ALICE, None, 0))])
    again = recover(log)
    assert again.rules == datastore.rules
    assert run_sql("select id from letter", again, Caller(ALICE, is_owner=False)).rows == [(1,)]
    transaction = again.begin(0)
    replace_rules(again, [RowLevelSecurityDef(LETTERS_TO)])
    delta = transaction.commit()
    assert delta is not None
    log.append_nowait([encode(delta, Context("update", OWNER, None, 0))])
    again = recover(log)
    assert again.rules == {again.table("letter").schema.id: (LETTERS_TO,)}


def test_rules_that_stay_are_no_change() -> None:
    datastore = town(OWN_LETTERS, ROOMS_OF_VAULT)
    transaction = datastore.begin(0)
    replace_rules(datastore, map(RowLevelSecurityDef, (ROOMS_OF_VAULT, OWN_LETTERS)))
    assert transaction.commit() is None
    assert len(datastore.rules) == 2
