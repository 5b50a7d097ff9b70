"""Column types that Python has no type of its own for: integers of a width, 32-bit floats.

Responsible for: the names that annotations use. To a type checker they are `int` and `float`.
Not responsible for: reading annotations (`annotations`).

Source: spec 08, "Tables".
"""

from typing import Annotated, TypeAlias

from stdb.sats import types

__all__ = ["f32", "f64", "i8", "i16", "i32", "i64", "i128", "i256", "u8", "u16", "u32", "u64", "u128", "u256"]

u8: TypeAlias = Annotated[int, types.U8]
u16: TypeAlias = Annotated[int, types.U16]
u32: TypeAlias = Annotated[int, types.U32]
u64: TypeAlias = Annotated[int, types.U64]
u128: TypeAlias = Annotated[int, types.U128]
u256: TypeAlias = Annotated[int, types.U256]
i8: TypeAlias = Annotated[int, types.I8]
i16: TypeAlias = Annotated[int, types.I16]
i32: TypeAlias = Annotated[int, types.I32]
i64: TypeAlias = Annotated[int, types.I64]
i128: TypeAlias = Annotated[int, types.I128]
i256: TypeAlias = Annotated[int, types.I256]
f32: TypeAlias = Annotated[float, types.F32]
f64: TypeAlias = Annotated[float, types.F64]
