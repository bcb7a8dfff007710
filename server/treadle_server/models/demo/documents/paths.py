"""A question about a document: its fields, its conditions and the path expressions they make."""

import re
from dataclasses import dataclass

from treadle_server.models.demo.arithmetic.words import Token, stem
from treadle_server.models.demo.documents.documents import (
    Field,
    is_list,
    is_object,
    name_stems,
)
from treadle_server.models.demo.documents.filters import Filter, mention, prefix_of

FOLDS = {
    **dict.fromkeys(("sum", "total", "altogether", "combined", "overall", "add", "totals"), "sum"),
    **dict.fromkeys(("average", "mean", "avg"), "avg"),
    **dict.fromkeys(
        (
            "max",
            "maximum",
            "highest",
            "largest",
            "biggest",
            "greatest",
            "most",
            "oldest",
            "longest",
            "heaviest",
            "tallest",
            "top",
            "best",
            "priciest",
            "hottest",
            "warmest",
            "latest",
            "costliest",
            "richest",
        ),
        "max",
    ),
    **dict.fromkeys(
        (
            "min",
            "minimum",
            "lowest",
            "smallest",
            "cheapest",
            "least",
            "youngest",
            "shortest",
            "lightest",
            "fewest",
            "coldest",
            "worst",
        ),
        "min",
    ),
    **dict.fromkeys(("count", "number"), "count"),
    **dict.fromkeys(("list", "all", "which", "names", "show", "every"), "list"),
}
_IDENTITY = ("name", "title", "label", "product", "item", "id", "sku", "city", "country", "customer", "key")


@dataclass(frozen=True, slots=True)
class DocumentQuestion:
    tokens: tuple[Token, ...]
    stems: tuple[str, ...]
    fields: tuple[Field, ...]
    filters: tuple[Filter, ...]
    document: str
    top: frozenset[str] = frozenset()

    @property
    def free(self) -> list[str]:
        """The words that say nothing of a filter; others are empty, so that positions stay."""
        taken = {index for item in self.filters for index in item.words}
        return ["" if index in taken else word for index, word in enumerate(self.stems)]


def fold_of(question: DocumentQuestion) -> str:
    said = [
        FOLDS[token.text]
        for token, free in zip(question.tokens, question.free, strict=True)
        if free and token.kind == "word" and token.text in FOLDS
    ]
    return next((fold for fold in said if fold != "list"), said[0] if said else "")


def path_of(question: DocumentQuestion, prefix: tuple[str, ...], row: str) -> str:
    """The path of a field through its lists, each with the conditions that belong to it."""
    text, lists = "", 0
    for depth in range(len(prefix)):
        step = prefix[depth]
        conditions = [item.condition for item in question.filters if item.prefix == prefix[: depth + 1]]
        name = step.removesuffix("[]")
        text += ("." if text and name else "") + name
        if step.endswith("[]"):
            text += f"[?{' && '.join(conditions)}]" if conditions else "[]"
            text += "[]" if conditions and lists else ""
            lists += 1
    if row in ("", "@"):
        return text or "@"
    return f"{text}.{row}" if text else row


def applicable(question: DocumentQuestion, prefix: tuple[str, ...]) -> bool:
    return all(prefix[: len(item.prefix)] == item.prefix for item in question.filters)


def where_said(question: DocumentQuestion) -> str:
    return " where " + " and ".join(item.said for item in question.filters) if question.filters else ""


def mentioned_fields(question: DocumentQuestion, *, numeric: bool) -> list[Field]:
    """Fields the free words mention, the best first."""
    scored = []
    for field in question.fields:
        if (
            is_object(field)
            or (is_list(field) and not numeric)
            or (numeric and not (field.numeric or field.textual))
        ):
            continue
        strength, _ = mention(field, question.free)
        if strength and applicable(question, prefix_of(field)):
            scored.append((-strength, not field.many, len(field.parents), field))
    return [item[3] for item in sorted(scored, key=lambda item: item[:3])]


def numeric_field(question: DocumentQuestion) -> Field | None:
    mentioned = mentioned_fields(question, numeric=True)
    if mentioned:
        return mentioned[0]
    rest = [
        field
        for field in question.fields
        if field.many
        and (field.numeric or field.textual)
        and "id" not in name_stems(field.name)
        and applicable(question, prefix_of(field))
    ]
    scalars = [field for field in rest if not field.name]
    chosen = scalars if len(scalars) == 1 else rest
    unmentioned = [
        field for field in chosen if not any(item.field == field for item in question.filters)
    ] or chosen
    return unmentioned[0] if len(unmentioned) == 1 else None


def label_of(field: Field) -> str:
    name = field.name or field.parents[-1].removesuffix("[]") or "the values"
    return " ".join(re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", name).replace("_", " ").lower().split())


def collection_of(question: DocumentQuestion) -> tuple[str, ...] | None:
    """The list that the question counts or goes through."""
    prefixes = dict.fromkeys(prefix_of(field) for field in question.fields if field.many)
    usable = [prefix for prefix in prefixes if applicable(question, prefix)]
    named = [prefix for prefix in usable if stem(prefix[-1].removesuffix("[]")) in question.free]
    if named:
        return named[-1]
    if question.filters:
        return max((item.prefix for item in question.filters), key=len)
    return usable[0] if usable else None


def identity_of(question: DocumentQuestion, prefix: tuple[str, ...], measured: Field) -> Field | None:
    """The field that names an object of the list."""
    siblings = [
        field
        for field in question.fields
        if prefix_of(field) == prefix
        and field != measured
        and field.name
        and not is_list(field)
        and not is_object(field)
    ]
    asked = [field for field in siblings if mention(field, question.free)[0] >= 3]
    if asked:
        return asked[0]
    for name in _IDENTITY:
        for field in siblings:
            if name in name_stems(field.name):
                return field
    texts = [field for field in siblings if all(isinstance(sample, str) for sample in field.samples)]
    return texts[0] if texts else None
