"""What clients of the 0.11 generation see of a definition."""

from stdb.sats.profiles import OLD_ADDRESS, OLD_IDENTITY, OLD_SCHEDULE_AT
from stdb.sats.types import (
    BYTES,
    CONNECTION_ID,
    I256,
    IDENTITY,
    SCHEDULE_AT,
    STRING,
    TIME_DURATION,
    TIMESTAMP,
    U32,
    U64,
    U128,
    U256,
    UUID,
    Array,
    Element,
    Map,
    Product,
    Ref,
    Sum,
    Typespace,
    option,
    result,
)
from stdb.schema.legacy import is_reserved, legacy_face, legacy_type
from stdb.schema.model import ColumnDef, Lifecycle, ModuleDef, ReducerDef, TableDef


def _product(**elements: object) -> Product:
    return Product(tuple(Element(name, type_) for name, type_ in elements.items()))  # type: ignore[arg-type]


def test_special_types_have_the_shapes_of_their_time() -> None:
    for modern, old in (
        (IDENTITY, OLD_IDENTITY),
        (CONNECTION_ID, OLD_ADDRESS),
        (TIMESTAMP, U64),
        (TIME_DURATION, U64),
        (SCHEDULE_AT, OLD_SCHEDULE_AT),
        (UUID, U128),
        (U256, BYTES),
        (I256, BYTES),
        (STRING, STRING),
        (Ref(3), Ref(3)),
    ):
        assert legacy_type(modern) == old


def test_types_are_translated_however_deep() -> None:
    assert legacy_type(option(Array(_product(at=TIMESTAMP)))) == option(Array(_product(at=U64)))
    assert legacy_type(Map(UUID, IDENTITY)) == Map(U128, OLD_IDENTITY)
    assert legacy_type(result(SCHEDULE_AT, U256)) == Sum((Element("ok", OLD_SCHEDULE_AT), Element("err", BYTES)))


def _definition() -> ModuleDef:
    def table(name: str, *, is_event: bool = False) -> TableDef:
        columns = (ColumnDef("id", "id", U32), ColumnDef("who", "who", IDENTITY))
        return TableDef(name, name, 0, columns, is_event=is_event)

    return ModuleDef(
        Typespace((_product(id=U32, who=IDENTITY), _product(at=TIMESTAMP))),
        tables=(table("User"), table("Shot", is_event=True)),
        reducers=(
            ReducerDef("init", "init", Product(()), Lifecycle.INIT),
            ReducerDef("add", "add", _product(who=IDENTITY, more=Ref(1))),
            ReducerDef("came", "came", Product(()), Lifecycle.ON_CONNECT),
            ReducerDef("went", "went", Product(()), Lifecycle.ON_DISCONNECT),
            ReducerDef("__hidden__", "__hidden__", Product(())),
        ),
    )


def test_the_face_shows_ordinary_tables_and_callable_reducers_alone() -> None:
    face = legacy_face(_definition())
    assert [table.name for table in face.tables] == ["User"]
    assert face.tables[0].row_type == _product(id=U32, who=OLD_IDENTITY)
    assert face.table("Shot") is None
    assert [(reducer.name, reducer.id) for reducer in face.reducers] == [("add", 1)]
    assert face.reducers[0].params == _product(who=OLD_IDENTITY, more=Ref(1))
    assert face.typespace.types[1] == _product(at=U64)
    assert face.reducer("init") is None
    assert face.reducer("add") is face.reducers[0]


def test_lifecycle_reducers_have_the_names_of_that_generation() -> None:
    assert legacy_face(_definition()).lifecycles == {
        0: "__init__",
        2: "__identity_connected__",
        3: "__identity_disconnected__",
        4: "__hidden__",
    }
    assert is_reserved("__update__")
    assert not is_reserved("__add")


def test_the_face_of_a_definition_is_made_once() -> None:
    definition = _definition()
    assert legacy_face(definition) is legacy_face(definition)
