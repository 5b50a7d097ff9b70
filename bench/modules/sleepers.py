"""A counter to set, and procedures that sleep."""

from stdb import ProcedureContext, ReducerContext, primary_key, procedure, reducer, table, u32, u64


@table(public=True)
class Counter:
    id: u32 = primary_key()
    value: u64


@reducer
def set_counter(ctx: ReducerContext, value: u64) -> None:
    ctx.db[Counter].insert_or_update(Counter(id=0, value=value))


@procedure
async def sleep(ctx: ProcedureContext, seconds: u32) -> None:
    await ctx.sleep(seconds)
