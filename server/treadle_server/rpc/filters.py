"""The part of AIP-160 that lists understand: comparisons joined by AND, and OR within one field."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NoReturn

from treadle_server.core.errors import invalid
from treadle_server.ports.catalogue.thread_queries import Operator
from treadle_server.rpc.filter_fields import FilterField, FilterValueError, Scalar

COMPARISONS_MAX = 32
ALTERNATIVES_MAX = 100

_TOKEN = re.compile(
    r"""\s*(?:
    (?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
  | (?P<operator><=|>=|!=|=|<|>|:)
  | (?P<bracket>[()])
  | (?P<word>[^\s()"'=<>!:]+(?::[0-9][^\s()"'=<>!]*)?)
  | (?P<end>\Z)
  )""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Comparison:
    """One term: all terms of a filter must hold. With IN the value is a tuple of alternatives."""

    field: str
    operator: Operator
    value: Scalar | tuple[Scalar, ...] | None
    """None with HAS: there is any value."""
    key: str = ""
    """Of a map, as in `labels.team`."""


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    place: int
    """Character that it begins at, from 1."""


def parse_filter(text: str, fields: Mapping[str, FilterField]) -> tuple[Comparison, ...]:
    """The comparisons of a filter; none for an empty one.

    Raises Refused(FIELD_INVALID) naming `filter` and the character at fault.
    """
    if not text.strip():
        return ()
    comparisons = tuple(_Parser(text, fields).parse())
    if len(comparisons) > COMPARISONS_MAX:
        raise invalid(("filter", f"must have at most {COMPARISONS_MAX} comparisons"))
    return comparisons


class _Parser:
    """expression = factor {AND factor}; factor = term {OR term}; term = comparison | "(" expression ")"."""

    def __init__(self, text: str, fields: Mapping[str, FilterField]) -> None:
        self._fields = fields
        self._tokens = _tokens(text)
        self._token = next(self._tokens)
        self._depth = 0

    def parse(self) -> list[Comparison]:
        comparisons = self._expression()
        if self._token.kind != "end":
            self._fail("expected AND or OR")
        return comparisons

    def _expression(self) -> list[Comparison]:
        comparisons = self._factor()
        while self._is_word("AND"):
            self._advance()
            comparisons += self._factor()
        return comparisons

    def _factor(self) -> list[Comparison]:
        begin = self._token
        alternatives = [self._term()]
        while self._is_word("OR"):
            self._advance()
            alternatives.append(self._term())
        return alternatives[0] if len(alternatives) == 1 else [_either(alternatives, begin)]

    def _term(self) -> list[Comparison]:
        if self._token.text != "(" or self._token.kind != "bracket":
            return [self._comparison()]
        self._depth += 1
        if self._depth > COMPARISONS_MAX:
            self._fail("too many brackets")
        self._advance()
        comparisons = self._expression()
        if self._token.text != ")":
            self._fail("expected )")
        self._advance()
        self._depth -= 1
        return comparisons

    def _comparison(self) -> Comparison:
        name = self._token
        if name.kind != "word" or name.text in ("AND", "OR", "NOT") or name.text.startswith("-"):
            self._fail("expected a field")
        self._advance()
        field, key = self._find(name)
        if self._token.kind != "operator":
            self._fail("expected one of = != < <= > >= :")
        operator = Operator(self._token.text)
        if operator not in field.operators:
            allowed = " ".join(sorted(field.operators))
            self._fail(f"{name.text} can be compared by {allowed} only")
        if field.is_map and not key and operator is not Operator.HAS:
            self._fail(f"{name.text} is compared by key, {name.text}.{{key}}")
        self._advance()
        value = self._value(field, operator, key)
        if field.is_map and not key:
            return Comparison(name.text, operator, None, str(value))
        return Comparison(name.text if not key else name.text.partition(".")[0], operator, value, key)

    def _find(self, name: _Token) -> tuple[FilterField, str]:
        field = self._fields.get(name.text)
        if field is not None:
            return field, ""
        head, _, key = name.text.partition(".")
        field = self._fields.get(head)
        if field is None or not field.is_map or not key:
            known = ", ".join(f"{n}.{{key}}" if f.is_map else n for n, f in self._fields.items())
            _refuse(name, f"{name.text[:64]!r} is no field; there are {known}")
        return field, key

    def _value(self, field: FilterField, operator: Operator, key: str) -> Scalar | None:
        token = self._token
        if token.kind not in ("word", "string"):
            self._fail("expected a value")
        self._advance()
        quoted = token.kind == "string"
        if operator is Operator.HAS and not quoted and token.text == "*":
            return None
        if field.is_map and not key:
            return _unquoted(token)
        try:
            return field.read(_unquoted(token), quoted=quoted)
        except FilterValueError as problem:
            _refuse(token, str(problem))

    def _advance(self) -> None:
        self._token = next(self._tokens)

    def _is_word(self, text: str) -> bool:
        return self._token.kind == "word" and self._token.text == text

    def _fail(self, what: str) -> NoReturn:
        _refuse(self._token, what)


def _either(alternatives: list[list[Comparison]], begin: _Token) -> Comparison:
    """Alternatives of one field as one comparison."""
    values: list[Scalar] = []
    for terms in alternatives:
        first = alternatives[0][0]
        fits = len(terms) == 1 and terms[0].field == first.field and not terms[0].key
        if not fits or terms[0].operator not in (Operator.EQUAL, Operator.IN):
            _refuse(begin, "OR joins only = comparisons of one field")
        value = terms[0].value
        assert value is not None
        values += value if isinstance(value, tuple) else (value,)
    if len(values) > ALTERNATIVES_MAX:
        _refuse(begin, f"OR joins at most {ALTERNATIVES_MAX} comparisons")
    return Comparison(alternatives[0][0].field, Operator.IN, tuple(values))


def _tokens(text: str) -> Iterator[_Token]:
    """Ends with an `end` token, again and again."""
    place = 0
    while True:
        match = _TOKEN.match(text, place)
        if match is None:
            rest = len(text[place:]) - len(text[place:].lstrip())
            _refuse(_Token("", "", place + rest + 1), "cannot be read")
        kind = match.lastgroup
        assert kind is not None
        yield _Token(kind, match[kind], match.start(kind) + 1)
        place = match.end()


def _unquoted(token: _Token) -> str:
    return _ESCAPE.sub(r"\1", token.text[1:-1]) if token.kind == "string" else token.text


def _refuse(token: _Token, what: str) -> NoReturn:
    raise invalid(("filter", f"at character {token.place}: {what}"))
