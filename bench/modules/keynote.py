"""The transfer workload: accounts, and money moved between two of them."""

from stdb import ReducerContext, SenderError, i64, primary_key, reducer, table, u32


@table(public=True)
class Accounts:
    id: u32 = primary_key()
    balance: i64


@reducer
def seed(ctx: ReducerContext, n: u32, initial_balance: i64) -> None:
    ctx.db[Accounts].clear()
    ctx.db[Accounts].insert_many(Accounts(id=id_, balance=initial_balance) for id_ in range(n))


@reducer
def transfer(ctx: ReducerContext, from_: u32, to: u32, amount: i64) -> None:
    if from_ == to:
        raise SenderError("same_account")
    if amount <= 0:
        raise SenderError("non_positive_amount")
    accounts = ctx.db[Accounts]
    source = accounts.get(from_)
    target = accounts.get(to)
    if source is None or target is None:
        raise SenderError("account_missing")
    if source.balance < amount:
        raise SenderError("insufficient_funds")
    source.balance -= amount
    target.balance += amount
    accounts.update(source)
    accounts.update(target)
