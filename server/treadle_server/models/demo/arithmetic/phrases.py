"""Arithmetic in words and signs: `15% of the sum of 3 and 4, squared`."""

from collections.abc import Callable, Sequence

from treadle_server.models.demo.arithmetic import numerals
from treadle_server.models.demo.arithmetic.formulas import (
    Formula,
    grown,
    number,
    operation,
    percent_of,
    shrunk,
)
from treadle_server.models.demo.arithmetic.operators import (
    LISTS,
    MINUS,
    ORDINAL_POWERS,
    OVER,
    PLUS,
    POWER,
    REMAINDER,
    STOPS,
    TIMES,
    UNARY,
    UNIT_WORDS,
)
from treadle_server.models.demo.arithmetic.words import Token

Resolve = Callable[[Sequence[Token]], Formula | None]

"""What words that are not arithmetic stand for: a note, an earlier result, a value of a document."""


class Unreadable(Exception):  # noqa: N818 - no fault, only another kind of clause
    """The words are no arithmetic."""


class Phrase:
    """A cursor over the tokens of one clause. Its methods raise Unreadable."""

    def __init__(self, tokens: Sequence[Token], resolve: Resolve) -> None:
        self.tokens = tuple(tokens)
        self.at = 0
        self._resolve = resolve

    def word(self, offset: int = 0) -> str:
        index = self.at + offset
        return self.tokens[index].text if 0 <= index < len(self.tokens) else ""

    def ended(self) -> bool:
        return self.at >= len(self.tokens)

    def accept(self, *alternatives: tuple[str, ...]) -> bool:
        """Moves behind the first alternative that stands here."""
        for words in alternatives:
            here = tuple(
                token.text
                for token in self.tokens[self.at : self.at + len(words)]
                if token.kind in ("word", "symbol")
            )
            if here == words:
                self.at += len(words)
                return True
        return False

    def skip(self, *words: str) -> None:
        while not self.ended() and self.word() in words and self.tokens[self.at].kind in ("word", "symbol"):
            self.at += 1

    def percentage(self) -> Formula | None:
        """A bare `10%`, not the start of `10% of`."""
        if (
            not self.ended()
            and self.tokens[self.at].kind == "percent"
            and self.word(1) not in ("of", "off", "from")
        ):
            self.at += 1
            return number(self.tokens[self.at - 1].text)
        return None

    def expression(self) -> Formula:
        value = self.term()
        while True:
            comma = self._comma_before_operator()
            if self.accept(*PLUS):
                percent = self.percentage()
                value = grown(value, percent) if percent else _joined("+", value, self.term())
            elif self._minus():
                percent = self.percentage()
                value = shrunk(value, percent) if percent else operation("-", value, self.term())
            elif comma and (operator := self._product_operator()):
                value = operation(operator, value, self.power())
            else:
                self.at -= comma
                return value

    def _minus(self) -> bool:
        if self.word() == "less" and self.word(1) == "than":
            return False
        return self.accept(*MINUS)

    def _comma_before_operator(self) -> int:
        """Passes the comma in `12 times 7, plus 4`; what follows it applies to all before."""
        firsts = {words[0] for words in (*PLUS, *MINUS, *TIMES, *OVER)}
        if self.word() == "," and self.word(1) in firsts - {"and", "take", "-", "split"}:
            self.at += 1
            return 1
        return 0

    def _product_operator(self) -> str:
        if (
            self.word() == "x"
            and self.at + 1 < len(self.tokens)
            and (self.tokens[self.at + 1].kind == "number" or self.word(1) == "(")
        ):
            self.at += 1
            return "*"
        for symbol, forms in (("*", TIMES), ("/", OVER), ("%", REMAINDER), ("//", (("//",),))):
            if self.accept(*forms):
                return symbol
        return ""

    def term(self) -> Formula:
        value = self.power()
        while True:
            if operator := self._product_operator():
                value = operation(operator, value, self.power())
            elif self.word() == "of" and self.word(-1).isdigit() and self.word(-2) == "/":
                self.at += 1
                value = operation("*", value, self.power())
            elif self.word() == "(" and self.at and self.tokens[self.at - 1].kind in ("number", "symbol"):
                value = operation("*", value, self.power())
            else:
                return value

    def power(self) -> Formula:
        if self.accept(("-",), ("minus",), ("negative",)):
            inner = self.power()
            return operation("-", number(0), inner)
        self.accept(("+",))
        value = self.primary()
        while True:
            if exponent := self._ordinal_power():
                value = operation("**", value, exponent)
            elif self.accept(*POWER):
                value = operation("**", value, self.power())
                self.accept(("power",))
            elif self.accept(("squared",)):
                value = operation("**", value, number(2))
            elif self.accept(("cubed",)):
                value = operation("**", value, number(3))
            elif self.accept(("doubled",)):
                value = operation("*", value, number(2))
            elif self.accept(("tripled",)):
                value = operation("*", value, number(3))
            elif self.accept(("halved",)):
                value = operation("/", value, number(2))
            elif self.accept(("!",), ("factorial",)):
                value = _factorial(value)
            else:
                return value

    def _ordinal_power(self) -> Formula | None:
        """`to the fourth power`, `to the 5th`."""
        at = 2 if (self.word(), self.word(1)) == ("raised", "to") else 1
        if self.word(at - 1) != "to" or self.word(at) != "the":
            return None
        said = self.word(at + 1)
        digits = said.rstrip("stndrh")
        exponent = ORDINAL_POWERS.get(said) or (int(digits) if digits.isdigit() and digits != said else 0)
        if not exponent:
            return None
        self.at += at + 2
        self.accept(("power",))
        return number(exponent)

    def primary(self) -> Formula:
        mark = self.at
        for reading in (
            self._percent,
            self._fraction,
            self._number,
            self._bracket,
            self._root,
            self._list,
            self._unary,
        ):
            value = reading()
            if value is not None:
                return value
            self.at = mark
        return self._reference()

    def _percent(self) -> Formula | None:
        self.skip("a", "an", "the")
        if self.ended() or self.tokens[self.at].kind != "percent":
            return None
        share = number(self.tokens[self.at].text)
        self.at += 1
        if self.accept(
            ("off", "of"),
            ("off",),
            ("less", "than"),
            ("lower", "than"),
            ("discount", "on"),
            ("discount", "off"),
        ):
            self.skip("a", "an", "the")
            return shrunk(self.power(), share)
        if self.accept(("more", "than"), ("higher", "than"), ("above",), ("greater", "than")):
            return grown(self.power(), share)
        if self.accept(
            *[
                (noun, word)
                for noun in ("tip", "tax", "vat", "commission", "interest", "fee", "gratuity")
                for word in ("on", "of", "for")
            ]
        ):
            self.skip("a", "an", "the")
            value = percent_of(share, self.power())
            self.skip("bill", "purchase", "order", "meal", "price", "total", "dinner", "tab", "sale", "loan")
            return value
        return percent_of(share, self.power()) if self.accept(("of",)) else operation("/", share, number(100))

    def _fraction(self) -> Formula | None:
        self.accept(("a",), ("one",))
        upper: Formula = number(1)
        if not self.ended() and self.tokens[self.at].kind == "number" and numerals.denominator(self.word(1)):
            upper = number(self.word())
            self.at += 1
        lower = (
            numerals.denominator(self.word())
            if not self.ended() and self.tokens[self.at].kind == "word"
            else None
        )
        if lower is None:
            return None
        self.at += 1
        if not self.accept(("of",)) and self.word(-1) not in ("half", "quarter"):
            return None
        whole = self.power()
        numerator = whole if upper == number(1) else operation("*", whole, upper)
        return operation("/", numerator, number(lower))

    def _number(self) -> Formula | None:
        if self.ended() or self.tokens[self.at].kind != "number":
            return None
        value = number(self.word())
        self.at += 1
        if self.word() in UNIT_WORDS and self.tokens[self.at].kind == "word":
            self.at += 1
        if self.accept(("more", "than")):
            return operation("+", self.term(), value)
        if self.accept(("less", "than"), ("fewer", "than")):
            return operation("-", self.term(), value)
        if (
            len(self.word()) == 1
            and self.tokens[self.at].kind == "word"
            and (variable := self._resolve(self.tokens[self.at : self.at + 1]))
        ):
            self.at += 1
            return operation("*", value, variable)
        return value

    def _bracket(self) -> Formula | None:
        if not self.accept(("(",)):
            return None
        value = self.expression()
        if not self.accept((")",)):
            raise Unreadable
        return value

    def _root(self) -> Formula | None:
        self.skip("the")
        if self.accept(("square", "root"), ("root",), ("sqrt",), ("√",)):
            self.accept(("of",))
            return operation("sqrt", self.power())
        if self.accept(("cube", "root", "of"), ("cubic", "root", "of"), ("cube", "root")):
            return operation("**", self.power(), operation("/", number(1), number(3)))
        if self.accept(("absolute", "value", "of"), ("abs",)):
            return operation("abs", self.power())
        if self.accept(
            ("remainder", "of"), ("remainder", "when"), ("remainder", "after"), ("remainder", "if")
        ):
            return self._remainder()
        return None

    def _remainder(self) -> Formula:
        self.accept(("dividing",))
        left = self.power()
        self.skip("is")
        if not self.accept(("divided", "by"), ("/",), ("by",)):
            raise Unreadable
        return operation("%", left, self.power())

    def _list(self) -> Formula | None:
        self.skip("the")
        fold = LISTS.get(self.word())
        if fold is None:
            return None
        name = self.word()
        self.at += 1
        if self.word() in ("number", "value"):
            self.at += 1
        if self.accept(("of", "the", "squares", "of"), ("of", "squares", "of")):
            return fold([operation("**", part, number(2)) for part in self._list_parts()])
        if not self.accept(("of", "the", "numbers"), ("of",), ("between",), ("among",), ("from",), ("(",)):
            return None
        opened = self.word(-1) == "("
        self.accept((":",))
        try:
            parts = self._list_parts()
        except Unreadable:
            return None
        if opened and not self.accept((")",)):
            raise Unreadable
        if name in ("max", "min") and opened and self.at:
            return fold(parts)
        return fold(parts) if len(parts) > 1 else None

    def _list_parts(self) -> list[Formula]:
        """Operators in words behind the last part apply to the whole list, if it is one without them."""
        mark = self.at
        for part in (self._signed_product, self.term):
            self.at = mark
            parts = [part()]
            while self._separator():
                parts.append(part())
            if len(parts) > 1:
                break
        return parts

    def _signed_product(self) -> Formula:
        value = self.power()
        while (
            not self.ended()
            and self.tokens[self.at].kind == "symbol"
            and (operator := self._product_operator())
        ):
            value = operation(operator, value, self.power())
        return value

    def _separator(self) -> bool:
        mark = self.at
        if (
            self.accept((",", "and"), ("and",), ("and", "also"), (",",), ("to",))
            and not self.ended()
            and self.word() not in STOPS
        ):
            return True
        self.at = mark
        return False

    def _unary(self) -> Formula | None:
        self.skip("the")
        apply = UNARY.get(self.word())
        if apply is None:
            return None
        self.at += 1
        self.accept(("of",), ("the", "value", "of"))
        return apply(self.power())

    def _reference(self) -> Formula:
        """The longest run of words from here that stands for a value."""
        end = self.at
        while (
            end < len(self.tokens)
            and self.tokens[end].text not in STOPS
            and self.tokens[end].kind != "percent"
        ):
            end += 1
        for stop in range(end, self.at, -1):
            value = self._resolve(self.tokens[self.at : stop])
            if value is not None:
                self.at = stop
                return value
        raise Unreadable


def _joined(symbol: str, left: Formula, right: Formula) -> Formula:
    return operation(symbol, left, right)


def _factorial(value: Formula) -> Formula:
    count = int(getattr(value, "text", "0")) if getattr(value, "text", "").isdigit() else 0
    if not 1 <= count <= 30:
        raise Unreadable
    return operation("*", *[number(factor) for factor in range(count, 0, -1)]) if count > 1 else number(1)
