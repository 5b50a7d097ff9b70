"""Expressions of PostgreSQL's grammar, as far as needed to accept what is allowed and name what is not.

Responsible for: precedence, operators, literals, calls, everything that may stand where a value stands.
Not responsible for: which expressions a surface allows (`shape`), queries inside expressions (`queries`).

Source: spec 06 sections 2 and 3; precedences and the depth guard are those of the reference's parser.
"""

from abc import abstractmethod

from stdb.errors import QueryError
from stdb.sql.cursor import DEPTH_MAX, Cursor, syntax_error, too_deep, words
from stdb.sql.lexer import END, HEX, NUMBER, OTHER_STRING, PLACEHOLDER, QUOTED, STRING, SYMBOL, WORD, Token
from stdb.sql.syntax import (
    Call,
    Column,
    Expression,
    Function,
    Ident,
    Infix,
    Literal,
    LiteralKind,
    Nested,
    OrderItem,
    Other,
    Postfix,
    Prefix,
    Query,
)

__all__ = ["ExpressionParser"]

_OR, _AND, _NOT, _IS, _LIKE, _COMPARE, _PIPE, _CARET, _AMPERSAND, _XOR = 5, 10, 15, 17, 19, 20, 21, 22, 23, 24
_PLUS, _TIMES, _AT_ZONE, _TIGHT = 30, 40, 41, 50
_SUBEXPRESSIONS_MAX = 200
"""Operands inside operands; chains of one precedence count once. The reference has no bound but its stack."""
_PREFIXES_MAX = 30
"""Prefix operators inside prefix operators; every one of them is refused later anyway."""

_SYMBOL_PRECEDENCE = {
    **dict.fromkeys(("=", "==", "<>", "!=", "<", "<=", ">", ">=", "<=>", "~", "~*", "!~", "!~*"), _COMPARE),
    **dict.fromkeys(("~~", "~~*", "!~~", "!~~*"), _COMPARE),
    "|": _PIPE,
    **dict.fromkeys(("^", "#", ">>", "<<"), _CARET),
    "&": _AMPERSAND,
    **dict.fromkeys(("+", "-"), _PLUS),
    **dict.fromkeys(("*", "/", "%", "||"), _TIMES),
    **dict.fromkeys(("::", "!", "[", "&&", "->", "->>", "#>", "#>>", "@>", "<@", "#-", "@?", "@@", "?|", "?&"), _TIGHT),
    **dict.fromkeys(("^@", "<->"), _TIGHT),
}
_KEYWORD_PRECEDENCE = {"OR": _OR, "AND": _AND, "XOR": _XOR, "IS": _IS, "IN": _COMPARE, "BETWEEN": _COMPARE}
_LIKES = ("LIKE", "ILIKE", "SIMILAR", "RLIKE", "REGEXP")
_PRINTED_OPERATOR = {"==": "=", "!=": "<>"}
_PREFIXES = {"-": _TIMES, "+": _TIMES, "~": _PLUS, "@": _PLUS, "!!": _PLUS, "|/": _PLUS, "||/": _PLUS}
_BARE_CALLS = frozenset(("CURRENT_CATALOG", "CURRENT_USER", "SESSION_USER", "USER"))
_TIME_CALLS = frozenset(("CURRENT_TIMESTAMP", "CURRENT_TIME", "CURRENT_DATE", "LOCALTIME", "LOCALTIMESTAMP"))
_SPECIAL_CALLS = frozenset(("EXTRACT", "CEIL", "FLOOR", "POSITION", "SUBSTRING", "OVERLAY", "TRIM", "LISTAGG"))
_TYPE_WORDS = words(
    """BOOLEAN BOOL FLOAT REAL FLOAT4 FLOAT8 FLOAT64 DOUBLE TINYINT SMALLINT MEDIUMINT INT INTEGER BIGINT INT2 INT4
    INT8 INT64 VARCHAR NVARCHAR CHARACTER CHAR CLOB BINARY VARBINARY BLOB UUID DATE DATETIME TIMESTAMP TIMESTAMPTZ
    TIME TIMETZ JSON JSONB REGCLASS STRING TEXT BYTEA BYTES NUMERIC DECIMAL DEC BIGNUMERIC BIGDECIMAL"""
)


class ExpressionParser(Cursor):
    """Parses expressions."""

    _level = 0
    _prefixes = 0

    @abstractmethod
    def query(self) -> Query:
        """Parse a query; the subqueries of expressions."""

    def expression(self) -> Expression:
        """Parse one expression; counts one level of nesting."""
        if self._depth >= DEPTH_MAX:
            raise too_deep()
        self._depth += 1  # as `deeper` does, for the many
        try:
            return self._operand(0)
        finally:
            self._depth -= 1

    # Infix.

    def _operand(self, above: int) -> Expression:
        """Parse an expression of operators that bind tighter than `above`.

        Loop and prefix stand in one function: four of them, one for each precedence, may lie between parentheses, and
        the interpreter counts frames.
        """
        if self._level >= _SUBEXPRESSIONS_MAX:
            raise too_deep()
        self._level += 1
        try:
            left = self._value()
            if self.take_keyword("COLLATE"):
                left = Other(f"{left} COLLATE {self.table_name()}")
            chain: list[tuple[str, Expression]] = []
            chain_precedence = 0
            while (precedence := self._next_precedence()) > above:
                operator = self._binary_operator()
                if operator is not None and not self.is_any_keyword("ANY", "ALL", "SOME"):
                    if precedence != chain_precedence and chain:
                        left, chain = Infix(left, tuple(chain)), []
                    chain_precedence = precedence
                    chain.append((operator, self._operand(precedence)))
                    continue
                if chain:
                    left, chain = Infix(left, tuple(chain)), []
                left = self._other_infix(left, operator, precedence)
            return Infix(left, tuple(chain)) if chain else left
        finally:
            self._level -= 1

    def _next_precedence(self) -> int:
        token = self.peek()
        if token.kind == SYMBOL:
            return _SYMBOL_PRECEDENCE.get(token.text, 0)
        word = token.keyword
        if not word:
            return 0
        if word == "NOT":
            following = self.peek(1).keyword
            return _COMPARE if following in ("IN", "BETWEEN") else _LIKE if following in _LIKES else 0
        if word == "AT":
            return _AT_ZONE if self.is_keyword("AT", "TIME", "ZONE") else 0
        if word in _LIKES:
            return _LIKE
        return _TIMES if word == "DIV" else _KEYWORD_PRECEDENCE.get(word, 0)

    def _binary_operator(self) -> str | None:
        """Take a binary operator and return it as printed; None when something else follows the operand."""
        token = self.peek()
        if token.kind == SYMBOL and token.text not in ("::", "!", "["):
            self.at += 1
            return _PRINTED_OPERATOR.get(token.text, token.text)
        if token.keyword in ("OR", "AND", "XOR"):
            self.at += 1
            return token.keyword
        return None

    def _other_infix(self, left: Expression, operator: str | None, precedence: int) -> Expression:
        if operator is not None:
            return self._quantified(left, operator)
        token = self.take()
        if token.text == "!" and token.kind == SYMBOL:
            return Postfix(left, "!")
        if token.text == "[" and token.kind == SYMBOL:
            inner = self.expression()
            self.expect_symbol("]")
            return Other(f"{left}[{inner}]")
        if token.text == "::":
            return Other(f"CAST({left} AS {self.type_name()})")
        if token.keyword == "IS":
            return Other(f"{left} IS {self._is_what()}")
        if token.keyword == "AT":
            self.expect_keyword("TIME", "ZONE")
            return Other(f"{left} AT TIME ZONE {self._string()}")
        if token.keyword == "DIV":
            place = f"at Line: {token.line}, Column {token.column}"
            word = f'Word(Word {{ value: "{token.text}", quote_style: None, keyword: DIV }})'
            raise QueryError(f"sql parser error: No infix parser for token {word} {place}")
        negated = "NOT " if token.keyword == "NOT" else ""
        if negated:
            token = self.take()
        return self._predicate(left, f"{negated}{token.keyword}", token.keyword, precedence)

    def _quantified(self, left: Expression, operator: str) -> Expression:
        word = self.take().keyword
        self.expect_symbol("(")
        inner = self._operand(0)
        self.expect_symbol(")")
        return Other(f"{left} {operator} {word}({inner})")

    def _is_what(self) -> str:
        start = self.at
        negated = "NOT " if self.take_keyword("NOT") else ""
        word = self.take_any_keyword("NULL", "TRUE", "FALSE", "UNKNOWN")
        if word:
            return negated + word
        if self.take_keyword("DISTINCT", "FROM"):
            return f"{negated}DISTINCT FROM {self.expression()}"
        self.at = start
        raise syntax_error("[NOT] NULL or TRUE|FALSE or [NOT] DISTINCT FROM after IS", self.peek())

    def _predicate(self, left: Expression, shown: str, word: str, precedence: int) -> Expression:
        if word == "IN":
            if self.take_keyword("UNNEST"):
                return Other(f"{left} {shown} UNNEST{self.parenthesised()}")
            self.expect_symbol("(")
            inner = str(self.query()) if self.is_any_keyword("SELECT", "WITH") else self._list_until_parenthesis()
            self.expect_symbol(")")
            return Other(f"{left} {shown} ({inner})")
        if word == "BETWEEN":
            low = self._operand(_COMPARE)
            self.expect_keyword("AND")
            return Other(f"{left} {shown} {low} AND {self._operand(_COMPARE)}")
        if word == "SIMILAR":
            self.expect_keyword("TO")
            shown += " TO"
        pattern = self._operand(_LIKE)
        escape = f" ESCAPE {self._string()}" if self.take_keyword("ESCAPE") else ""
        return Other(f"{left} {shown} {pattern}{escape}")

    def _list_until_parenthesis(self) -> str:
        return "" if self.is_symbol(")") else ", ".join(map(str, self.commas(self.expression)))

    def _string(self) -> str:
        token = self.take()
        if token.kind not in (STRING, OTHER_STRING):
            raise syntax_error("literal string", token)
        return _quoted(token.text)

    # Prefix.

    def _value(self) -> Expression:
        token = self.peek()
        if token.kind == WORD:
            return self._word(token)
        self.at += 1
        if token.kind == QUOTED:
            return self._name_or_call(Ident(token.text, '"'))
        if token.kind == NUMBER:
            return Literal(LiteralKind.NUMBER, token.text, token.text)
        if token.kind == STRING:
            return Literal(LiteralKind.STRING, token.text, _quoted(token.text))
        if token.kind == HEX:
            return Literal(LiteralKind.HEX, token.text, token.shown)
        if token.kind in (OTHER_STRING, PLACEHOLDER):
            return Literal(LiteralKind.OTHER, token.text, token.shown)
        if token.kind == SYMBOL and token.text in _PREFIXES:
            return self._prefixed(token.text, _PREFIXES[token.text])
        if token.kind == SYMBOL and token.text == "(":
            return self._parenthesis()
        if token.kind == SYMBOL and token.text == "[":
            return Other(self._array(""))
        raise syntax_error("an expression:", token)

    def _parenthesis(self) -> Expression:
        if self.is_any_keyword("SELECT", "WITH"):
            inner = self.query()
            self.expect_symbol(")")
            return Other(f"({inner})")
        parts = self.commas(self.expression)
        self.expect_symbol(")")
        nested: Expression = Nested(parts[0]) if len(parts) == 1 else Other(f"({', '.join(map(str, parts))})")
        if self.take_symbol("."):
            return Other(f"{nested}.{self.identifier()}")
        return nested

    def _array(self, word: str) -> str:
        inner = "" if self.is_symbol("]") else ", ".join(map(str, self.commas(self.expression)))
        self.expect_symbol("]")
        return f"{word}[{inner}]"

    def _word(self, token: Token) -> Expression:
        word = token.keyword
        if word in _TYPE_WORDS and (typed := self.attempt(self._typed_string)):
            return typed
        self.at += 1
        if word in ("TRUE", "FALSE"):
            return Literal(LiteralKind.BOOL, word.lower(), word.lower())
        if word == "NULL":
            return Literal(LiteralKind.OTHER, word, word)
        if word == "NOT":
            return self._not()
        special = self._special(word, token)
        return special if special is not None else self._name_or_call(Ident(token.text))

    def _typed_string(self) -> Expression:
        name = self.type_name()
        token = self.peek()
        if token.kind not in (STRING, OTHER_STRING):
            raise syntax_error("literal string", token)
        return Other(f"{name} {self._string()}")

    def type_name(self) -> str:
        """Take the name of a type; return it printed."""
        name = self.table_name()
        shown = str(name).upper() if str(name).upper() in _TYPE_WORDS else str(name)
        if self.take_keyword("PRECISION"):
            shown += " PRECISION"
        if self.is_symbol("("):
            shown += self.parenthesised()
        for clause in (("WITH", "TIME", "ZONE"), ("WITHOUT", "TIME", "ZONE")):
            if self.take_keyword(*clause):
                shown += " " + " ".join(clause)
        while self.take_symbol("["):
            self.expect_symbol("]")
            shown += "[]"
        return shown

    def _not(self) -> Expression:
        if self.is_keyword("EXISTS"):
            self.at += 1
            return Other(f"NOT {self._exists()}")
        return self._prefixed("NOT ", _NOT)

    def _prefixed(self, operator: str, above: int) -> Expression:
        if self._prefixes >= _PREFIXES_MAX:
            raise too_deep()
        self._prefixes += 1
        try:
            return Prefix(operator, self._operand(above))
        finally:
            self._prefixes -= 1

    def _exists(self) -> str:
        self.expect_symbol("(")
        inner = self.query()
        self.expect_symbol(")")
        return f"EXISTS ({inner})"

    def _special(self, word: str, token: Token) -> Expression | None:
        """Parse the words that are no names in an expression; None for all others."""
        if word in _BARE_CALLS:
            return Function(token.text)
        if word in _TIME_CALLS:
            arguments = self.parenthesised() if self.is_symbol("(") else ""
            return Function(token.text + arguments)
        if word == "CASE":
            return Other(self._case())
        if word in ("CAST", "TRY_CAST", "SAFE_CAST"):
            return Other(self._cast(word))
        if word == "EXISTS":
            return Other(self._exists())
        if word in _SPECIAL_CALLS:
            if not self.is_symbol("("):
                raise syntax_error("(", self.peek())
            return Other(word + self.parenthesised())
        if word == "INTERVAL":
            return Other(self._interval())
        if word == "ARRAY":
            return self._array_word()
        return None

    def _array_word(self) -> Expression | None:
        if self.take_symbol("["):
            return Other(self._array("ARRAY"))
        if self.is_symbol("(") and self.peek(1).keyword in ("SELECT", "WITH"):
            return Other("ARRAY" + self.parenthesised())
        return None

    def _case(self) -> str:
        parts = ["CASE"]
        if not self.is_keyword("WHEN"):
            parts.append(str(self.expression()))
        self.expect_keyword("WHEN")
        while True:
            condition = self.expression()
            self.expect_keyword("THEN")
            parts.append(f"WHEN {condition} THEN {self.expression()}")
            if not self.take_keyword("WHEN"):
                break
        if self.take_keyword("ELSE"):
            parts.append(f"ELSE {self.expression()}")
        self.expect_keyword("END")
        return " ".join([*parts, "END"])

    def _cast(self, word: str) -> str:
        self.expect_symbol("(")
        inner = self.expression()
        self.expect_keyword("AS")
        name = self.type_name()
        self.expect_symbol(")")
        return f"{word}({inner} AS {name})"

    def _interval(self) -> str:
        value = self.expression()
        unit = self.take_any_keyword("YEAR", "MONTH", "WEEK", "DAY", "HOUR", "MINUTE", "SECOND", "MILLISECOND")
        return f"INTERVAL {value} {unit}".rstrip()

    def _name_or_call(self, first: Ident) -> Expression:
        parts = [first]
        while self.is_symbol(".") and not self.is_symbol("*", 1):
            self.at += 1
            parts.append(self.identifier())
        if self.is_symbol("("):
            return self._call(tuple(parts))
        return Column(tuple(parts))

    def _call(self, parts: tuple[Ident, ...]) -> Function:
        self.expect_symbol("(")
        arguments, column, is_distinct = self._arguments()
        self.expect_symbol(")")
        shown = f"{'.'.join(map(str, parts))}({arguments})"
        is_plain = len(parts) == 1 and not parts[0].quote and (column is not None or arguments == "*")
        call = Call(parts[0].value.lower(), column, is_distinct) if is_plain else None
        has_filter = self.take_keyword("FILTER")
        if has_filter:
            shown, call = f"{shown} FILTER {self.parenthesised()}", None
        for nulls in (("IGNORE", "NULLS"), ("RESPECT", "NULLS")):
            if self.take_keyword(*nulls):
                shown, call = f"{shown} {' '.join(nulls)}", None
        if self.take_keyword("OVER"):
            window = self.parenthesised() if self.is_symbol("(") else str(self.identifier())
            shown, call = f"{shown} OVER {window}", None
        return Function(shown, has_filter, call)

    def _arguments(self) -> tuple[str, Column | None, bool]:
        """Take arguments: printed, the only one where it is a column, whether DISTINCT stands before them."""
        if self.is_symbol(")"):
            return "", None, False
        is_distinct = self.take_any_keyword("DISTINCT", "ALL") == "DISTINCT"
        found: list[Expression] = []
        while not found or self.take_symbol(","):  # a loop here: the interpreter counts frames
            if self.take_symbol("*"):
                found.append(Other("*"))
            else:
                found.append(self._rest_of_argument(self.expression()))
        shown = ", ".join(map(str, found))
        column = found[0] if len(found) == 1 and isinstance(found[0], Column) else None
        if self.take_keyword("ORDER", "BY"):
            shown, column = f"{shown} ORDER BY {', '.join(map(str, self.order_list()))}", None
        return f"DISTINCT {shown}" if is_distinct else shown, column, is_distinct

    def _rest_of_argument(self, value: Expression) -> Expression:
        if isinstance(value, Column) and self.is_symbol(".") and self.is_symbol("*", 1):
            self.at += 2
            return Other(f"{value}.*")
        return Other(f"{value} => {self.expression()}") if self.take_symbol("=>") else value

    def order_list(self) -> tuple[OrderItem, ...]:
        """Take what follows ORDER BY."""
        return tuple(self.commas(self._order_item))

    def _order_item(self) -> OrderItem:
        expression = self.expression()
        direction = self.take_any_keyword("ASC", "DESC")
        nulls = ""
        if self.take_keyword("NULLS"):
            nulls = "FIRST" if self.take_keyword("FIRST") else "LAST"
            if nulls == "LAST":
                self.expect_keyword("LAST")
        return OrderItem(expression, direction, nulls)

    def expect_end(self) -> None:
        """Raise unless the statement ends here."""
        token = self.peek()
        if token.kind != END and not self.is_symbol(";"):
            raise syntax_error("end of statement", token)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
