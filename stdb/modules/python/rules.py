"""Filters of what clients see: the rules of row-level security.

Responsible for: the declaration `client_visibility_filter`.
Not responsible for: checking its SQL (`stdb.sql.rules`, with the place by `definition`), what it does to queries.

Source: spec 08, "Functions"; spec 06 section 6.
"""

from stdb.modules.python.declarations import RuleDeclaration, caller_module, caller_place, register, report

__all__ = ["client_visibility_filter"]


def client_visibility_filter(sql: str) -> None:
    """Let clients see only those rows of a public table that a query returns; stands at the top level of a module.

    The query protects the table that it returns: `SELECT * FROM message WHERE sender = :sender`, or
    `SELECT m.* FROM room_member r JOIN message m ON r.room = m.room WHERE r.who = :sender`. `:sender` is the client
    that looks; private tables may be joined. With several filters of one table a client sees what any of them returns;
    a row that two of them return is there twice. The owner of the database, and reducers, see everything.
    """
    if not isinstance(sql, str):
        report(caller_place(), f"client_visibility_filter takes the SQL of a query as text, got {sql!r}")
        return
    register(RuleDeclaration(sql, caller_module(), caller_place()))
