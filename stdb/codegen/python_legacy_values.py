"""What every package of bindings for the old Python SDK has in its `_values.py`: the same for all modules."""

__all__ = ["VALUES"]

VALUES = '''"""What the classes of this package have in common."""

import math

from spacetimedb_sdk.spacetimedb_client import SpacetimeDBClient


def client():
    """Return the client that the SDK has made."""
    if getattr(SpacetimeDBClient, "instance", None) is None:
        raise RuntimeError("there is no client yet: make a SpacetimeDBClient or a SpacetimeDBAsyncClient first")
    return SpacetimeDBClient.instance


class Product:
    """Fields by name, in `data`; an attribute that is not there is None.

    Made from a row as the server sends it, or from Python values: `Point.of(x=1, y=2)`.
    """

    is_table_class = False
    fields = ()

    @classmethod
    def of(cls, **values):
        if set(values) != set(cls.fields):
            raise TypeError(f"{cls.__name__}.of() takes the fields {', '.join(cls.fields)}; got {', '.join(values)}")
        made = cls.__new__(cls)
        made.data = {name: values[name] for name in cls.fields}
        return made

    def __getattr__(self, name):
        if name == "data" or name.startswith("__"):
            raise AttributeError(name)
        return self.data.get(name)

    def __eq__(self, other):
        return type(other) is type(self) and other.data == self.data

    def __hash__(self):
        return hash(repr(self))

    def __repr__(self):
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.data.items())})"


class Table(Product):
    """A row; the class knows all rows of its table that the client has subscribed to."""

    is_table_class = True
    table_name = ""
    primary_key = None

    @classmethod
    def register_row_update(cls, callback):
        """Call `callback(operation, old row, new row, reducer event)` for each "insert", "update" and "delete"."""
        client()._register_row_update(cls.table_name, callback)

    @classmethod
    def iter(cls):
        return client()._get_table_cache(cls.table_name).values()

    @classmethod
    def _first(cls, column, value):
        return next((row for row in cls.iter() if row.data[column] == value), None)

    @classmethod
    def _all(cls, column, value):
        return [row for row in cls.iter() if row.data[column] == value]


class Variant:
    """One of `variants`: `tag` is its place among them, `value` what it holds.

    `Shape("Circle", 2.0)` and `Shape(0, 2.0)` are the same.
    """

    is_table_class = False
    variants = ()

    def __init__(self, tag, value=()):
        self.tag = self.variants.index(tag) if isinstance(tag, str) else tag
        self.value = value

    @property
    def name(self):
        return self.variants[self.tag]

    def __eq__(self, other):
        return type(other) is type(self) and (other.tag, other.value) == (self.tag, self.value)

    def __hash__(self):
        return hash(repr(self))

    def __repr__(self):
        return f"{type(self).__name__}({self.name!r}, {self.value!r})"


def decode_sum(data, decoders):
    """Return (tag, value) of a sum that has no name."""
    ((tag, payload),) = data.items()
    return int(tag), decoders[int(tag)](payload)


def encode_sum(value, encoders):
    tag, payload = value
    return {str(tag): encoders[tag](payload)}


def decode_float(data):
    return math.nan if data is None else float(data)


def encode_float(value):
    if not math.isfinite(value):
        raise ValueError(f"{value} cannot be sent: JSON has no such number")
    return value


def encode_address(value):
    return ["00" * 16 if value is None else str(value)]


def decode_arguments(data, decode, count):
    """Return the arguments of a call; of one that was refused before it ran, what its caller sent."""
    try:
        if len(data) == count:
            return decode(data)
    except (ArithmeticError, AttributeError, LookupError, StopIteration, TypeError, ValueError):
        pass
    return (list(data) + [None] * count)[:count]
'''
