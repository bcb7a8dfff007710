"""The greatest and the least of a document's lists, whose they are, and sums of products."""

import re

from treadle_server.models.demo.arithmetic.words import stem
from treadle_server.models.demo.documents.documents import Field, name_stems
from treadle_server.models.demo.documents.filters import mention, prefix_of, within_row
from treadle_server.models.demo.documents.paths import (
    FOLDS,
    DocumentQuestion,
    applicable,
    fold_of,
    identity_of,
    label_of,
    numeric_field,
    path_of,
    where_said,
)
from treadle_server.models.demo.tasks import Agenda, Query

Reading = tuple[str, str, str, str]

"""Query, what it is about, fold and the plain query for it."""

ABOUT = {
    "sum": "the total of",
    "avg": "the average of",
    "max": "the highest",
    "min": "the lowest",
    "list": "the list of",
}

_QUANTITY = frozenset({"quantity", "qty", "count", "unit", "stock", "hour", "piece"})

_WORTH = frozenset(
    {"value", "cost", "revenue", "worth", "price", "bill", "turnover", "inventory", "invoice", "spend", "pay"}
)


def names_collection(prefix: tuple[str, ...] | None, stems: list[str]) -> bool:
    return (
        bool(prefix and prefix[-1] != "[]") and stem(prefix[-1].removesuffix("[]")) in stems
        if prefix
        else False
    )


def read_extreme(question: DocumentQuestion) -> Reading | None:
    operator = fold_of(question)
    if operator not in ("max", "min"):
        return None
    field = numeric_field(question)
    if field is None or not field.many:
        return None
    prefix = prefix_of(field)
    row = within_row(field)
    rows = path_of(question, prefix, "")
    label = f"{ABOUT[operator]} {label_of(field)}{where_said(question)}"
    key = f"to_number({row})" if field.textual else row
    count = _how_many_of(question)
    identity = identity_of(question, prefix, field) if field.name else None
    if count and identity:
        order = f"sort_by({rows}, &{key})"
        order = f"reverse({order})" if operator == "max" else order
        return (
            f"{order}[:{count}].{within_row(identity)}",
            f"the {identity.name} of the {count} with {label}",
            "",
            "",
        )
    if identity and _asks_identity(question, identity, field):
        return (
            f"{operator}_by({rows}, &{key}).{within_row(identity)}",
            f"the {label_of(identity)} with {label}",
            "",
            "",
        )
    path = path_of(question, prefix, row)
    values = f"map(&to_number(@), {path})" if field.textual else path
    return f"{operator}({values})", label, "", ""


def owner_of(question: DocumentQuestion, document: str) -> Query | None:
    """The query that `which one has it` means behind a maximum or a minimum."""
    operator = fold_of(question)
    field = numeric_field(question) if operator in ("max", "min") else None
    identity = identity_of(question, prefix_of(field), field) if field and field.many and field.name else None
    if field is None or identity is None:
        return None
    key = f"to_number({within_row(field)})" if field.textual else within_row(field)
    rows = path_of(question, prefix_of(field), "")
    about = f"the {label_of(identity)} with {ABOUT[operator]} {label_of(field)}{where_said(question)}"
    return Query(document, f"{operator}_by({rows}, &{key}).{within_row(identity)}", about)


_WHO_HAS_IT = re.compile(
    r"^(?:and )?(?:which|who|what)(?: (?:one|item|product|person|entry|of them|[a-z]+))? "
    r"(?:has|is|holds|had|was|does|costs|weighs|earns|got|belongs?) ?(?:it|that|this)?(?: "
    r"(?:belong to|come from))?[ ?.]*$",
    re.IGNORECASE,
)


def read_owner(clause: str, agenda: Agenda) -> bool:
    """`and which one has it?` behind a question for a maximum."""
    if (
        agenda.owner is None
        or not _WHO_HAS_IT.match(clause.strip())
        or not re.search(r"\b(?:it|that|this)\b", clause)
    ):
        return False
    agenda.result(agenda.owner)
    return True


def _how_many_of(question: DocumentQuestion) -> int:
    for at, token in enumerate(question.tokens[:-1]):
        if token.kind == "number" and token.text.isdigit() and 1 < int(token.text) < 100:
            beside = {word.text for word in question.tokens[max(0, at - 1) : at + 3]}
            if beside & set(FOLDS):
                return int(token.text)
    return 0


def _asks_identity(question: DocumentQuestion, identity: Field, measured: Field) -> bool:
    texts = [token.text for token in question.tokens]
    if {"who", "who's", "whose", "which", "whom"} & set(texts):
        return True
    if mention(identity, question.free)[0] >= 3:
        return True
    sized = {"biggest", "largest", "highest", "smallest", "lowest", "maximum", "minimum", "greatest"} & set(
        texts
    )
    prefix = prefix_of(measured)
    if sized and names_collection(prefix, question.free):
        return False
    return mention(measured, question.free)[0] < 6


def row_products(question: DocumentQuestion) -> tuple[str, str] | None:
    """Price times quantity, summed over the rows."""
    stems = question.free
    for prefix in dict.fromkeys(prefix_of(field) for field in question.fields if field.many):
        siblings = [field for field in question.fields if prefix_of(field) == prefix and field.numeric]
        prices = [
            field for field in siblings if set(name_stems(field.name)) & {"price", "cost", "rate", "unit"}
        ]
        amounts = [
            field for field in siblings if set(name_stems(field.name)) & _QUANTITY and field not in prices
        ]
        if named := _factors(question, siblings):
            prices, amounts = named[:1], named[1:]
        if not prices or not amounts or not applicable(question, prefix):
            continue
        both = all(mention(field, stems)[0] >= 6 for field in (prices[0], amounts[0]))
        texts = [token.text for token in question.tokens]
        times = bool({"times", "multiplied", "*", "x", "product", "by"} & set(texts))
        worth = bool(set(stems) & _WORTH) and "prices" not in texts and "costs" not in texts
        worth = worth and (
            bool({"total", "overall", "sum", "whole", "all", "full", "entire"} & set(texts))
            or "revenue" in stems
        )
        if (both and times) or (worth and "average" not in texts and "unit" not in stems):
            row = f"[{within_row(prices[0])}, {within_row(amounts[0])}]"
            about = f"the total of {label_of(prices[0])} times {label_of(amounts[0])}{where_said(question)}"
            return path_of(question, prefix, row), about
    return None


def _factors(question: DocumentQuestion, siblings: list[Field]) -> list[Field]:
    """The two fields of `price times pots`."""
    texts = [token.text for token in question.tokens]
    at = next((place for place, text in enumerate(texts) if text in ("times", "*", "x", "multiplied")), 0)
    left = [field for field in siblings if mention(field, question.free[max(0, at - 2) : at])[0] >= 10]
    right = [field for field in siblings if mention(field, question.free[at + 1 : at + 4])[0] >= 10]
    return [left[0], right[0]] if at and left and right and left[0] != right[0] else []
