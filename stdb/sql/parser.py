"""Statements: SQL text to one syntax tree.

Responsible for: the number of statements, INSERT, UPDATE, DELETE, SET, SHOW, and knowing every other statement by name.
Not responsible for: what a surface allows (`shape`).

Source: spec 06 sections 1, 2 and 4. Texts of syntax errors follow the reference where they were seen.
"""

from collections.abc import Callable

from stdb.errors import QueryError
from stdb.sql.cursor import syntax_error, words
from stdb.sql.lexer import END, OTHER_STRING, STRING, WORD, tokenize
from stdb.sql.queries import QueryParser
from stdb.sql.syntax import (
    Assignment,
    Delete,
    Expression,
    Ident,
    Insert,
    OtherStatement,
    SetVariable,
    ShowVariable,
    Statement,
    Update,
)

__all__ = ["TEXT_BYTES_MAX", "parse", "parse_all"]

TEXT_BYTES_MAX = 50_000
"""Longest SQL text, in bytes of UTF-8."""

_OTHER_STATEMENTS = words(
    """EXPLAIN DESCRIBE TRUNCATE MSCK CREATE CACHE DROP DISCARD DECLARE FETCH UNCACHE ALTER COPY CLOSE USE GRANT REVOKE
    START BEGIN SAVEPOINT COMMIT ROLLBACK ASSERT DEALLOCATE EXECUTE PREPARE MERGE COMMENT PRAGMA KILL ATTACH END
    RELEASE ANALYZE"""
)
_SHOWN_AS = {"BEGIN": "BEGIN TRANSACTION", "END": "COMMIT"}


def parse(text: str) -> Statement:
    """Return the one statement of `text`.

    Raises:
        QueryError: Too long, no statement, several statements, or none that SQL knows.
    """
    statements = parse_all(text)
    if not statements:
        raise QueryError("Empty SQL query")
    if len(statements) > 1:
        raise QueryError("Multiple SQL statements are not supported")
    return statements[0]


def parse_all(text: str) -> list[Statement]:
    """Return the statements of `text`, none too.

    Raises:
        QueryError: Too long, or one is none that SQL knows.
    """
    if len(text) > TEXT_BYTES_MAX or len(text.encode("utf-8", "surrogatepass")) > TEXT_BYTES_MAX:
        raise QueryError(f'SQL query exceeds maximum allowed length: "{text[:120]}..."')
    return _StatementParser(tokenize(text)).statements()


class _StatementParser(QueryParser):
    """Parses statements."""

    def statements(self) -> list[Statement]:
        found: list[Statement] = []
        while True:
            while self.take_symbol(";"):
                pass
            if self.peek().kind == END:
                return found
            found.append(self.statement())
            self.expect_end()

    def statement(self) -> Statement:
        with self.deeper():
            word = self.peek().keyword
            if word in ("SELECT", "WITH", "VALUES") or self.is_symbol("("):
                return self.query()
            known = _PARSERS.get(word)
            if known is not None:
                self.at += 1
                return known(self)
            if word in _OTHER_STATEMENTS:
                return self._other(word)
            raise syntax_error("an SQL statement", self.peek())

    # INSERT.

    def insert(self) -> Insert:
        action = self._conflict_action()
        overwrite = self.take_keyword("OVERWRITE")
        self.take_keyword("INTO")
        is_table = self.is_keyword("TABLE") and self.peek(1).kind == WORD
        self.at += is_table
        table = self.table_name()
        columns = tuple(self._columns()) if self.is_symbol("(") else ()
        rows: tuple[tuple[Expression, ...], ...] | None = None
        if self.take_keyword("VALUES"):
            rows = tuple(self.commas(self.row_values))
            source = "VALUES " + ", ".join(f"({', '.join(map(str, row))})" for row in rows)
        else:
            source = str(self.query())
        extra = self._after_insert()
        head = f"INSERT{action} {'OVERWRITE' if overwrite else 'INTO'}{' TABLE' if is_table else ''}"
        listed = f" ({', '.join(map(str, columns))})" if columns else ""
        shown = f"{head} {table}{listed} {source}{extra}"
        return Insert(table, columns, source, rows, shown, head == "INSERT INTO" and not extra)

    def _conflict_action(self) -> str:
        if not self.take_keyword("OR"):
            return ""
        action = self.take_any_keyword("REPLACE", "ROLLBACK", "ABORT", "FAIL", "IGNORE")
        if not action:
            raise syntax_error("one of REPLACE or ROLLBACK or ABORT or FAIL or IGNORE", self.peek())
        return f" OR {action}"

    def _columns(self) -> list[Ident]:
        self.expect_symbol("(")
        columns = self.commas(self.identifier)
        self.expect_symbol(")")
        return columns

    def _after_insert(self) -> str:
        conflict = f"  ON {self.rest_of_statement()}" if self.take_keyword("ON") else ""
        return conflict + self._returning(" ")

    def _returning(self, before: str = "") -> str:
        if not self.take_keyword("RETURNING"):
            return ""
        return f"{before}RETURNING {', '.join(map(str, self.select_items()))}"

    # UPDATE and DELETE.

    def update(self) -> Update:
        table = self.relation()
        self.expect_keyword("SET")
        assignments = tuple(self.commas(self._assignment))
        from_ = f"FROM {self.relation()}" if self.take_keyword("FROM") else ""
        where = self.expression() if self.take_keyword("WHERE") else None
        return Update(table, assignments, where, self._returning(), from_)

    def _assignment(self) -> Assignment:
        names: list[str] = []
        while self.peek().kind != END and not self.is_symbol("="):
            token = self.take()
            if token.kind <= 1:  # words and quoted names; everything else is passed over, as in the reference
                names.append(token.text)
        self.expect_symbol("=")
        return Assignment(".".join(names), self.expression())

    def delete(self) -> Delete:
        if not self.is_keyword("FROM"):
            self.commas(self.table_name)
        self.expect_keyword("FROM")
        relations = tuple(self.commas(self.relation))
        using = f"USING {', '.join(map(str, self.commas(self.relation)))}" if self.take_keyword("USING") else ""
        where = self.expression() if self.take_keyword("WHERE") else None
        return Delete(relations, where, using, self._returning())

    # SET and SHOW.

    def set(self) -> Statement:
        scope = self.take_any_keyword("SESSION", "LOCAL", "HIVEVAR")
        shown_scope = f"{scope} " if scope in ("LOCAL", "HIVEVAR") else ""
        if self.take_keyword("ROLE"):
            return OtherStatement(f"SET {shown_scope}ROLE {self.identifier()}")
        if self.take_keyword("TIME", "ZONE"):
            return OtherStatement(f"SET {shown_scope}TIME ZONE {self.expression()}")
        if self.is_any_keyword("CHARACTERISTICS", "TRANSACTION"):
            return OtherStatement(f"SET {shown_scope}{self.rest_of_statement()}")
        name = self.table_name()
        if not self.take_symbol("=") and not self.take_keyword("TO"):
            raise syntax_error("equals sign or TO", self.peek())
        return SetVariable(str(name), tuple(self.commas(self.expression)), shown_scope)

    def show(self) -> Statement:
        words: list[str] = []
        first = self.peek().keyword
        while self.peek().kind in (WORD, STRING, OTHER_STRING):
            words.append(self.take().text)
        if first in ("TABLES", "COLUMNS", "FIELDS", "CREATE", "FUNCTIONS", "COLLATION", "EXTENDED", "FULL"):
            words[0] = first
            rest = self.rest_of_statement()
            return OtherStatement(" ".join(["SHOW", *words, *([rest] if rest else [])]))
        return ShowVariable(" ".join(words), tuple(words))

    # Everything else.

    def _other(self, word: str) -> OtherStatement:
        self.at += 1
        if word == "EXPLAIN" and self.is_any_keyword("SELECT", "WITH", "VALUES"):
            return OtherStatement(f"EXPLAIN {self.query()}")
        if word == "ANALYZE" and not self.is_keyword("TABLE"):
            raise syntax_error("TABLE", self.peek())
        if word == "DECLARE" and self.peek(1).keyword not in ("CURSOR", "BINARY", "INSENSITIVE", "SCROLL", "NO"):
            self.at += 1
            raise syntax_error("CURSOR", self.peek())
        self.at -= 1
        shown = self.rest_of_statement()
        if word == "COPY" and "STDIN" in shown.upper() and self.peek().kind == END:
            raise syntax_error(";", self.peek())
        if word == "CREATE" and " ON " in shown and "INDEX" in shown:
            shown = shown.replace(" (", "(")
        return OtherStatement(_SHOWN_AS.get(shown, shown))


_PARSERS: dict[str, Callable[[_StatementParser], Statement]] = {
    "INSERT": _StatementParser.insert,
    "UPDATE": _StatementParser.update,
    "DELETE": _StatementParser.delete,
    "SET": _StatementParser.set,
    "SHOW": _StatementParser.show,
}
