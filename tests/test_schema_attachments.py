"""Rules for what hangs on a module: routes, environment, outboxes, submodules."""

from dataclasses import replace
from typing import Any

import pytest

from stdb.sats.types import (
    IDENTITY,
    STRING,
    U32,
    U64,
    UNIT,
    Array,
    Ref,
    Typespace,
    result,
)
from stdb.schema import documents
from stdb.schema import raw as raw_module
from stdb.schema.model import Lifecycle, Visibility
from stdb.schema.raw import (
    NameKind,
    RawColumnDefault,
    RawEnvironmentVariable,
    RawExplicitName,
    RawHttpHandler,
    RawHttpRoute,
    RawLifecycleReducer,
    RawModuleDefV10,
    RawOutbox,
    RawReducerV10,
    RawSubmodule,
    RawViewPrimaryKey,
    RawViewV10,
)
from stdb.schema.validation import validate
from tests.schema_samples import module, outcome, plain_table, product, table


def test_routes_of_any_method_collide_with_every_other() -> None:
    handlers = (RawHttpHandler("h"),)
    routes = (RawHttpRoute("h", "Get", "/x"), RawHttpRoute("h", "Post", "/x"), RawHttpRoute("h", None, "/y"))
    definition = validate(module(http_handlers=handlers, http_routes=routes))
    assert definition.http_routes[1].method == "Post"
    found = outcome(module(http_handlers=handlers, http_routes=(*routes, RawHttpRoute("h", None, "/x"))))
    assert found == ["HTTP route duplicates method Any for path /x"]


def _variables(*declared: RawEnvironmentVariable) -> RawModuleDefV10:
    return module(environment=declared)


def test_environment_variables_are_kept() -> None:
    one, two = RawEnvironmentVariable("A", ("y", "x", "y"), True), RawEnvironmentVariable("B", "only", False)
    definition = validate(_variables(one, two, RawEnvironmentVariable("C", None, False)))
    assert definition.environment is not None
    assert [variable.choices for variable in definition.environment] == [("x", "y"), ("only",), None]
    assert validate(_variables()).environment == ()
    assert validate(module()).environment is None


@pytest.mark.parametrize(
    ("declared", "text"),
    [
        ([RawEnvironmentVariable("1A", None, False)], "invalid name"),
        (
            [RawEnvironmentVariable("A", None, False)] * 2,
            'environment key "A": duplicate declaration',
        ),
        ([RawEnvironmentVariable("A", (), False)], 'environment key "A": string union must not be empty'),
        (
            [RawEnvironmentVariable("A", tuple(map(str, range(257))), False)],
            'environment key "A": string union has too many entries',
        ),
        (
            [RawEnvironmentVariable("A", "x" * 8193, False)],
            'environment key "A": declared literal exceeds value size limit',
        ),
        ([RawEnvironmentVariable(f"A{i}", None, False) for i in range(257)], "too many declarations"),
        (
            [RawEnvironmentVariable("A", tuple(str(i) + "x" * 8180 for i in range(257)), False)],
            'environment key "A": declaration schema exceeds size limit',
        ),
    ],
)
def test_bad_environment_declarations_are_refused(declared: list[RawEnvironmentVariable], text: str) -> None:
    found = outcome(_variables(*declared))
    assert isinstance(found, list)
    assert f"invalid environment declaration: {text}" in found


def _with_outbox(**changes: Any) -> RawModuleDefV10:
    base = module(
        product(id=U64, to=IDENTITY, body=STRING),
        reducers=(RawReducerV10("answered", product(row=Ref(0), outcome=result(UNIT, STRING))),),
        outboxes=(RawOutbox("t", "remote", 1, (2,), "answered", bytes(32)),),
    )
    return replace(base, **changes)


def test_an_outbox_is_kept_and_its_answers_come_privately() -> None:
    definition = validate(_with_outbox())
    assert definition.outboxes[0].on_result_reducer == "answered"
    assert definition.reducers[0].visibility is Visibility.PRIVATE


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"outboxes": (RawOutbox("zz", "r", 1, (), None, ""),)}, "outbox table zz not found"),
        (
            {"outboxes": (RawOutbox("t", "r", 1, (), None, ""),) * 2},
            "table t is assigned in multiple outboxes",
        ),
        ({"tables": (table(is_event=True),)}, "outbox table t must not be an event table"),
        ({"tables": (plain_table(),)}, "outbox table t must have a primary key"),
        (
            {"outboxes": (RawOutbox("t", "r", 2, (), None, ""),)},
            "outbox table t must have exactly one non-primary-key identity target column",
        ),
        (
            {"outboxes": (RawOutbox("t", "r", 1, (9,), None, ""),)},
            "outbox table t argument column 9 does not exist",
        ),
        ({"reducers": ()}, "on_result reducer answered for outbox t does not exist"),
        (
            {"reducers": (RawReducerV10("answered"),)},
            "on_result reducer answered for outbox t must have the parameters (&0, ",
        ),
        (
            {"typespace": Typespace((product(id=U32, to=IDENTITY, body=STRING),))},
            "outbox table t primary key must be u64, found U32",
        ),
    ],
)
def test_bad_outboxes_are_refused(changes: dict[str, Any], text: str) -> None:
    found = outcome(_with_outbox(**changes))
    assert isinstance(found, list)
    assert any(error.startswith(text) for error in found)


# ---- submodules ----


def _mounted(namespace: str, inner: RawModuleDefV10 | None = None, **changes: Any) -> RawModuleDefV10:
    return module(submodules=(RawSubmodule(namespace, inner or module()),), **changes)


def test_a_submodule_is_validated_and_kept_under_its_canonical_namespace() -> None:
    (submodule,) = validate(_mounted("myAuth", case_policy=None)).submodules
    assert (submodule.namespace, submodule.accessor) == ("my_auth", "myAuth")
    assert submodule.definition.tables[0].name == "t"
    pinned = (RawExplicitName(NameKind.NAMESPACE, "myAuth", "auth"),)
    assert validate(_mounted("myAuth", explicit_names=pinned)).submodules[0].namespace == "auth"


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (
            _mounted("n" * 64),
            f"submodule namespace `{'n' * 64}` is 64 bytes, which exceeds the 63-byte limit",
        ),
        (
            _mounted(
                "a",
                module(
                    reducers=(RawReducerV10("r"),), lifecycle_reducers=(RawLifecycleReducer(Lifecycle.ON_CONNECT, "r"),)
                ),
            ),
            "lifecycle event OnConnect is not permitted in submodule under namespace `a`; "
            "lifecycle reducers may only be declared in the root module",
        ),
        (
            module(submodules=(RawSubmodule("a", module()),) * 2),
            "name `a` is used for multiple entities",
        ),
        (
            _mounted("auth", reducers=(RawReducerV10("auth"),)),
            "naming conflict between reducer `auth` and submodule namespace `auth`; "
            "a reducer cannot share its accessor name with a namespace mounted in the same module",
        ),
        (
            _mounted("x", module(environment=(RawEnvironmentVariable("A", None, True),))),
            'submodule "x" cannot declare environment variables',
        ),
        (
            _mounted("x", module(tables=(plain_table("st_a"),))),
            "submodule `x`: Table name is reserved for system use: st_a",
        ),
    ],
)
def test_bad_submodules_are_refused(raw: RawModuleDefV10, text: str) -> None:
    found = outcome(raw)
    assert isinstance(found, list)
    assert text in found


# ---- written back ----


def test_everything_attached_survives_being_written_back() -> None:
    definition = validate(
        _with_outbox(
            tables=(table(default_values=(RawColumnDefault(2, b"\0\0\0\0"),)),),
            http_handlers=(RawHttpHandler("h"),),
            http_routes=(RawHttpRoute("h", "Get", "/x"),),
            environment=(RawEnvironmentVariable("A", ("x", "y"), True),),
            submodules=(RawSubmodule("sub", module()),),
            views=(RawViewV10("v", 0, True, True, UNIT, Array(Ref(0))),),
            view_primary_keys=(RawViewPrimaryKey("v", ("id",)),),
        )
    )
    again = validate(raw_module.decode(raw_module.encode(documents.to_raw_v10(definition))))
    assert again.environment == definition.environment
    assert again.http_routes == definition.http_routes
    assert again.outboxes == definition.outboxes
    assert again.submodules[0].definition.table("t") is not None
    assert again.views == definition.views
    assert documents.to_json(again, 10) == documents.to_json(definition, 10)
    exports = documents.to_json(definition, 9)["misc_exports"]
    assert exports[0] == {"ColumnDefaultValue": {"table": "t", "col_id": 2, "value": "00000000"}}
