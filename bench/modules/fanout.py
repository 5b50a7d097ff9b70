"""One row that everybody watches, and one row an owner."""

from stdb import ReducerContext, index, primary_key, reducer, table, u32, u64


@table(public=True)
class Shared:
    id: u32 = primary_key()
    value: u64


@table(public=True)
class Owned:
    id: u32 = primary_key()
    owner: u32 = index()
    value: u64


@reducer
def set_shared(ctx: ReducerContext, value: u64) -> None:
    ctx.db[Shared].insert_or_update(Shared(id=1, value=value))


@reducer
def set_owned(ctx: ReducerContext, owner: u32, value: u64) -> None:
    ctx.db[Owned].insert_or_update(Owned(id=owner, owner=owner, value=value))
