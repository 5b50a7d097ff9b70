"""Bindings for the Unity SDK of 0.11: the shapes that the SDK and its source generator ask for."""

import re
from collections.abc import Mapping

import pytest
import tree_sitter
import tree_sitter_c_sharp

from stdb.codegen.csharp_legacy import generate_csharp
from stdb.modules.python.loader import load
from tests.recorded_kitchen import definition

SHOP = b"""
from stdb import Identity, Timestamp, primary_key, unique, table, reducer, ReducerContext, client_connected, u32

@table(name="Item", public=True)
class Item:
    id: u32 = primary_key(auto_inc=True)
    label: str = unique()
    item: str
    price: float | None
    owner: Identity

@table(name="event", public=True)
class Event:
    at: Timestamp

@reducer
def buy(ctx: ReducerContext, item: u32, reducer_event: str, class_: bool) -> None:
    pass

@client_connected
def hello(ctx: ReducerContext) -> None:
    pass
"""


@pytest.fixture(scope="module")
def shop() -> Mapping[str, str]:
    return generate_csharp(load({"shop.py": SHOP}).definition)


def faults(node: tree_sitter.Node) -> list[tuple[int, int]]:
    """Return where a parser of C# stumbled."""
    found = [tuple(node.start_point)] if node.type == "ERROR" or node.is_missing else []
    return found + [place for child in node.children for place in faults(child)]  # type: ignore[return-value]


def test_every_file_is_c_sharp(shop: Mapping[str, str]) -> None:
    parser = tree_sitter.Parser(tree_sitter.Language(tree_sitter_c_sharp.language()))
    assert faults(parser.parse(b"public class A { int x = ; }").root_node)
    for files in (shop, generate_csharp(definition())):
        for name, text in files.items():
            assert not faults(parser.parse(text.encode()).root_node), name


def test_a_table_is_a_class_of_the_very_name_with_its_key_and_indexes(shop: Mapping[str, str]) -> None:
    item = shop["Item.cs"]
    assert (
        "public partial class Item : SpacetimeDB.DatabaseTableWithPrimaryKey<Item, SpacetimeDB.Types.ReducerEvent>"
        in item
    )
    assert '[DataMember(Name = "id")]' in item
    assert "public override object GetPrimaryKeyValue() => Id;" in item
    assert "Id_Index[Id] = this;" in item
    assert "Label_Index.Remove(Label);" in item
    assert "public static Item? FindByLabel(string value)" in item
    assert "FilterByOwner(SpacetimeDB.Identity value)" in item
    assert "public double? Price;" in item
    assert "FilterByPrice" not in item


def test_without_a_primary_key_the_base_is_another(shop: Mapping[str, str]) -> None:
    assert "class @event : SpacetimeDB.DatabaseTable<@event, SpacetimeDB.Types.ReducerEvent>" in shop["event.cs"]
    assert "GetPrimaryKeyValue" not in shop["event.cs"]


def test_no_field_is_called_as_its_class(shop: Mapping[str, str]) -> None:
    assert 'public string Item_ = "";' in shop["Item.cs"]


def test_a_reducer_has_arguments_a_call_and_an_event(shop: Mapping[str, str]) -> None:
    buy = shop["BuyReducer.cs"]
    assert 'string IReducerArgsBase.ReducerName => "buy";' in buy
    assert "public static void Buy(uint item, string reducerEvent_2, bool @class)" in buy
    assert "OnBuyEvent(reducerEvent, args.Item, args.ReducerEvent, args.Class);" in buy


def test_the_client_knows_all_tables_and_reducers_and_events_without_a_binding(shop: Mapping[str, str]) -> None:
    client = shop["_Globals/SpacetimeDBClient.cs"]
    assert re.findall(r"AddTable<(.*)>", client) == ["Item", "@event"]
    assert '"buy" => BSATNHelpers.Decode<BuyArgsStruct>' in client
    assert '"__identity_connected__"' in client
    assert "hello" not in client
    assert "MonoBehaviour" in shop["_Globals/UnityNetworkManager.cs"]


def test_types_without_a_name_are_declared_under_that_of_their_field() -> None:
    kitchen = generate_csharp(definition())
    assert "(\n        ulong Time,\n        ulong Interval\n    )" in kitchen["ScheduleAt.cs"]
    assert "public SpacetimeDB.Types.EveryOptOpt OptOpt = null!;" in kitchen["every.cs"]
    assert "TaggedEnum<(" in kitchen["EveryOptOpt.cs"]
    assert "public enum Color" in kitchen["Color.cs"]


def test_the_namespace_is_the_callers() -> None:
    files = generate_csharp(load({"shop.py": SHOP}).definition, "Shop.Bindings")
    assert all("namespace Shop.Bindings\n{" in text and "SpacetimeDB.Types" not in text for text in files.values())
