"""The words for arithmetic."""

from collections.abc import Callable

from treadle_server.models.demo.arithmetic.formulas import (
    Formula,
    mean,
    number,
    operation,
    total,
)
from treadle_server.models.demo.arithmetic.words import word_set

UNIT_WORDS = word_set(
    """
    dollar dollars euro euros pound pounds buck bucks cent cents usd eur gbp chf yen km kilometers
    kilometres miles mile metres meters hours hour minutes minute seconds days day weeks week months
    years kg grams litres liters degrees
    """
)
PLUS = (("+",), ("plus",), ("added", "to"), ("increased", "by"), ("raised", "by"), ("and", "then", "plus"))
MINUS = (
    ("-",),
    ("minus",),
    ("less",),
    ("decreased", "by"),
    ("reduced", "by"),
    ("lowered", "by"),
    ("take", "away"),
)
TIMES = (("*",), ("times",), ("multiplied", "by"), ("multiplied", "with"))
OVER = (("/",), ("divided", "by"), ("over",), ("split", "by"))
REMAINDER = (("%",), ("mod",), ("modulo",), ("modulus",))
POWER = (
    ("**",),
    ("to", "the", "power", "of"),
    ("raised", "to", "the", "power", "of"),
    ("raised", "to", "the", "power"),
    ("to", "the", "power"),
    ("raised", "to"),
)
ORDINAL_POWERS = {
    "second": 2,
    "third": 3,
    "fourth": 4,
    "fifth": 5,
    "sixth": 6,
    "seventh": 7,
    "eighth": 8,
    "ninth": 9,
    "tenth": 10,
}
LISTS: dict[str, Callable[[list[Formula]], Formula]] = {
    "sum": total,
    "total": total,
    "product": lambda parts: operation("*", *parts),
    "average": mean,
    "mean": mean,
    "difference": lambda parts: operation("-", *parts),
    "quotient": lambda parts: operation("/", *parts),
    "ratio": lambda parts: operation("/", *parts),
    **{
        word: (lambda parts: operation("max", *parts))
        for word in (
            "maximum",
            "max",
            "largest",
            "biggest",
            "greatest",
            "highest",
            "larger",
            "bigger",
            "greater",
        )
    },
    **{
        word: (lambda parts: operation("min", *parts))
        for word in ("minimum", "min", "smallest", "lowest", "least", "smaller", "lower", "lesser")
    },
}
UNARY: dict[str, Callable[[Formula], Formula]] = {
    "twice": lambda part: operation("*", number(2), part),
    "double": lambda part: operation("*", number(2), part),
    "thrice": lambda part: operation("*", number(3), part),
    "triple": lambda part: operation("*", number(3), part),
    "treble": lambda part: operation("*", number(3), part),
    "quadruple": lambda part: operation("*", number(4), part),
    "square": lambda part: operation("**", part, number(2)),
    "cube": lambda part: operation("**", part, number(3)),
    "halve": lambda part: operation("/", part, number(2)),
}
STOPS = word_set(
    """
    plus minus times multiplied divided added increased decreased reduced , + - * / ** ( ) = mod
    modulo squared cubed doubled tripled halved
    """
)
