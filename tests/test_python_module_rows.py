"""Row classes: constructor, equality, repr, match, replace, slots; and what a class body may not hold."""

import copy
import inspect
import pickle
from typing import Any, ClassVar

import pytest

from stdb import Timestamp, auto_inc, column, index, primary_key, product, replace, table, u8, u32, unique
from stdb.modules.python.columns import NO_DEFAULT
from stdb.modules.python.rows import shape_of


class Named:
    """Columns that several tables share."""

    id: u32 = primary_key(auto_inc=True)
    name: str

    def greeting(self) -> str:
        return f"I am {self.name}"


@table
class Hero(Named):
    """A hero."""

    hp: u8 = 10
    tags: list[str] = []
    born: Timestamp = column(default=Timestamp(5))
    LIMIT: ClassVar[int] = 3
    OTHER: "ClassVar[int]" = 4

    @property
    def is_alive(self) -> bool:
        return self.hp > 0

    def greeting(self) -> str:
        return super().greeting() + "!"

    @staticmethod
    def make(name: str) -> Any:
        return Hero(name=name)


@product
class Point:
    x: float
    y: float = 0.0


def test_the_constructor_takes_keywords_and_no_generated_column() -> None:
    hero = Hero(name="x")
    assert (hero.id, hero.name, hero.hp, hero.tags, hero.born) == (0, "x", 10, [], Timestamp(5))
    assert str(inspect.signature(Hero)) == "(*, name, hp=10, tags=…, born=Timestamp(5))"
    with pytest.raises(TypeError, match=r"Hero.__init__\(\) missing 1 required keyword-only argument: 'name'"):
        Hero()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"unexpected keyword argument 'id'"):
        Hero(name="x", id=3)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"positional"):
        Hero("x")  # type: ignore[misc]


def test_a_mutable_default_is_copied() -> None:
    one, other = Hero(name="x"), Hero(name="x")
    one.tags.append("a")
    assert other.tags == []


def test_columns_come_base_first() -> None:
    assert Hero.__match_args__ == ("id", "name", "hp", "tags", "born")  # type: ignore[attr-defined]


def test_equality_repr_and_hash() -> None:
    assert Point(x=1.0) == Point(x=1.0)
    assert Point(x=1.0) != Point(x=1.0, y=2.0)
    assert Point(x=1.0) != (1.0, 0.0)
    assert repr(Point(x=1.0)) == "Point(x=1.0, y=0.0)"
    with pytest.raises(TypeError, match="unhashable"):
        hash(Point(x=1.0))


def test_rows_are_slots_without_a_dict_and_refuse_other_attributes() -> None:
    assert not hasattr(Point(x=1.0), "__dict__")
    with pytest.raises(AttributeError):
        Point(x=1.0).z = 3  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match="no column 'helth'"):
        Hero(name="x").helth = 3  # type: ignore[attr-defined]
    assert type(Point.__dict__["x"]).__name__ == "member_descriptor"


def test_match_by_position_and_by_name() -> None:
    match Point(x=1.0, y=2.0):
        case Point(x, y=y):  # type: ignore[misc]
            assert (x, y) == (1.0, 2.0)
        case _:
            pytest.fail("no match")


def test_replace_gives_a_changed_copy_auto_inc_columns_included() -> None:
    hero = Hero(name="x")
    changed = replace(hero, id=7, name="y")
    assert (changed.id, changed.name, changed.hp) == (7, "y", 10)
    assert hero.name == "x"
    untyped: Any = hero
    assert untyped.replace(id=7, name="y") == changed == untyped.__replace__(id=7, name="y")
    with pytest.raises(TypeError, match=r"Hero has no column 'age'"):
        replace(hero, age=3)


def test_rows_copy_and_pickle() -> None:
    hero = Hero(name="x", tags=["a"])
    deep = copy.deepcopy(hero)
    assert deep == hero == copy.copy(hero) == pickle.loads(pickle.dumps(hero))
    assert deep.tags is not hero.tags


def test_methods_properties_super_and_class_variables_work() -> None:
    hero = Hero.make("x")
    assert (hero.greeting(), hero.is_alive, Hero.LIMIT, Hero.OTHER) == ("I am x!", True, 3, 4)
    assert isinstance(hero, Named)
    assert Hero.__doc__ == "A hero."
    assert (Hero.__name__, Hero.__module__) == ("Hero", __name__)


def test_columns_are_expressions_on_the_class_and_cannot_be_set_there() -> None:
    assert repr(Hero.hp) == "Hero.hp"
    with pytest.raises(AttributeError, match="set it on a row"):
        Hero.hp = 3
    with pytest.raises(AttributeError, match="cannot be deleted"):
        del Hero.hp
    with pytest.raises(AttributeError):
        Hero.nothing  # type: ignore[attr-defined]  # noqa: B018


def test_an_own_equality_and_hash_are_kept() -> None:
    @product
    class Key:
        value: str

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Key) and self.value.lower() == other.value.lower()

        def __hash__(self) -> int:
            return hash(self.value.lower())

    assert {Key(value="A")} == {Key(value="a")}


def test_markers_say_what_they_say() -> None:
    @table
    class Marked:
        a: u32 = unique()
        b: u32 = index(kind="hash", default=4)
        c: u32 = auto_inc()
        d: u32 = unique(auto_inc=True)

    shape = shape_of(Marked)
    assert shape is not None
    a, b, c, d = (each.marker for each in shape.columns)
    assert (a.unique, a.default, b.index and b.index.suffix, b.default) == (True, NO_DEFAULT, "hash", 4)
    assert (c.auto_inc, c.unique, d.auto_inc, d.unique) == (True, False, True, True)
    assert Marked(a=1).b == 4
    with pytest.raises(ValueError, match='use "btree", "hash" or "direct"'):
        index(kind="tree")  # type: ignore[call-overload]


@pytest.mark.parametrize("name", ["replace", "mro", "__slots_", "class"])
def test_names_that_a_column_cannot_have(name: str) -> None:
    cls = type("Odd", (), {"__annotations__": {name if name != "__slots_" else "__slots__": int}})
    with pytest.raises(TypeError, match=r"a column can have|taken by what every row has"):
        table(cls)


def test_inheriting_from_a_table_or_product_is_refused() -> None:
    with pytest.raises(TypeError, match=r"Worse inherits from Point, which is a table or product itself"):

        @product
        class Worse(Point):
            z: float

    with pytest.raises(TypeError, match=r"needs a name of its own"):
        table(Hero)
    with pytest.raises(TypeError, match=r"@product is for classes"):
        product(3)  # type: ignore[type-var]
    with pytest.raises(TypeError, match=r"an auto_inc column has no default"):
        table(type("Odd", (), {"__annotations__": {"a": int}, "a": primary_key(auto_inc=True, default=3)}))  # type: ignore[call-overload]


def test_the_authors_face_is_lazy_and_complete() -> None:
    import subprocess
    import sys

    import stdb

    assert all(getattr(stdb, name) is not None for name in stdb.__all__)
    assert set(stdb.__all__) <= set(dir(stdb))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        stdb.nothing  # noqa: B018
    script = "import sys, stdb.sats.types; sys.exit(any(m.startswith('stdb.modules') for m in sys.modules))"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
