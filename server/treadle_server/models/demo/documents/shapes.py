"""Questions that depend on a document's build: its keys, objects of objects, fields that it lacks."""

import json
import re
from dataclasses import replace
from itertools import pairwise
from typing import Any

from treadle_server.models.demo.arithmetic.words import plain, stem, word_set
from treadle_server.models.demo.documents.documents import (
    Field,
    first_level,
    is_list,
    is_number,
    is_object,
    joined,
    name_stems,
    quoted,
)
from treadle_server.models.demo.documents.filters import SYNONYMS, mention, prefix_of, within_row
from treadle_server.models.demo.documents.paths import (
    DocumentQuestion,
    fold_of,
    identity_of,
    label_of,
    path_of,
    where_said,
)

_ASIDE = word_set(
    """
    the a an of in is are was were be has have had do does did what which who whose where when how
    much many it its this that these those there for to from with by at on and or my me i we you us
    please tell give show get find list json data document object array payload entry entry's row
    record item value field key everything all about detail detail's information info whole full
    complete look like up one each every any given here now current exactly his her their name
    called following below above let know want need would like can could s return
    """
)
_NAMES = word_set("name title label sku id model")
_WHOLE = word_set(
    "entry row record object detail everything all info information whole full complete list show"
)


def missing_field(question: DocumentQuestion) -> str:
    """What to say when the question names one thing of the document and asks for a field that it lacks."""
    if len(question.filters) > 1 or fold_of(question) in ("sum", "avg", "max", "min", "count"):
        return ""
    if stranger := _stranger(question):
        return f"The JSON says nothing about {stranger}."
    thing = _thing(question)
    free = [word for word in question.free if word]
    if not thing or set(free) & _WHOLE or {"first", "second", "third", "last"} & set(free):
        return ""
    words = [
        word
        for word, token in zip(question.free, question.tokens, strict=True)
        if word and token.kind == "word" and word not in _ASIDE and word != stem(thing)
    ]
    scalars = [field for field in question.fields if not is_object(field)]
    if not words or any(mention(field, question.free)[0] >= 3 for field in scalars):
        return ""
    names = {
        part for field in question.fields for step in field.parents for part in name_stems(step.strip("[]"))
    }
    lacked = [word for word in words if word not in names]
    return f'The JSON says nothing about "{" ".join(lacked)}" for {thing}.' if lacked else ""


def _stranger(question: DocumentQuestion) -> str:
    """A name in the question that no list of the document holds; empty when all are known."""
    texts = [str(sample).lower() for field in question.fields for sample in field.samples]
    if question.filters or fold_of(question) or not any(field.many for field in question.fields):
        return ""
    names = {
        part
        for field in question.fields
        for part in (*name_stems(field.name), *name_stems("".join(field.parents)))
    }
    for before, token in pairwise(question.tokens):
        name = token.typed.removesuffix("'s")
        proper = token.kind == "word" and re.fullmatch(r"[A-Z][a-z]+", name) and stem(name) not in names
        known = stem(name) in _ASIDE or any(name.lower() in text for text in texts)
        if proper and not known and before.text not in (".", ":", "!", "?"):
            return name
    return ""


def _thing(question: DocumentQuestion) -> str:
    """The one row or object that the question names; empty when it names none."""
    if question.filters:
        item = question.filters[0]
        samples = [sample for sample in item.field.samples if isinstance(sample, str)]
        siblings = [field for field in question.fields if prefix_of(field) == item.prefix and field.name]
        texts = [field for field in siblings if any(isinstance(sample, str) for sample in field.samples)]
        if item.field not in texts[:1] and not set(name_stems(item.field.name)) & _NAMES:
            return ""
        own = len(set(samples)) == len(samples) == len(item.field.samples) and "==" in item.condition
        return item.said.rpartition(" is ")[2] if own and "is not" not in item.said else ""
    named = [
        field for field in question.fields if is_object(field) and mention(field, question.free)[0] >= 10
    ]
    return named[-1].name if named else ""


def read_keys(question: DocumentQuestion) -> tuple[str, str, str, str] | None:
    """`what are the top-level keys?`"""
    said = {token.text for token in question.tokens}
    if "keys" not in said or any("key" in name_stems(field.name) for field in question.fields):
        return None
    if isinstance(first_level(question.document), dict):
        objects = [
            field
            for field in question.fields
            if is_object(field) and not field.many and mention(field, question.free)[0] >= 10
        ]
        path = f"keys({objects[0].path if objects else '@'})"
    else:
        path = "keys([0])"
    count = {"how", "many"} <= said
    return (f"length({path})", "the number of keys", "", "") if count else (path, "the list of keys", "", "")


def read_sorted(question: DocumentQuestion) -> tuple[str, str, str, str] | None:
    """`list the names sorted by price`."""
    words = [token.text for token in question.tokens]
    at = next((index for index, word in enumerate(words) if word in _SORTS and "by" in words[index:]), -1)
    if at < 0 or any(token.numeric for token in question.tokens[at:]):
        return None
    by = words.index("by", at)
    fields = [
        field
        for field in question.fields
        if field.many and field.name and not is_object(field) and not is_list(field)
    ]
    keys = [field for field in fields if mention(field, question.stems[by:])[0] >= 3]
    if not keys:
        return None
    key = max(keys, key=lambda field: mention(field, question.stems[by:])[0])
    earlier = replace(question, tokens=question.tokens[:by], stems=question.stems[:by], filters=())
    named = [field for field in fields if field != key and mention(field, earlier.stems)[0] >= 6]
    shown = named[0] if named else identity_of(earlier, prefix_of(key), key)
    if shown is None or prefix_of(shown) != prefix_of(key):
        return None
    down = re.search(
        r"\b(?:descending|desc|(?:highest|largest|biggest|most|greatest) first|from high\w*)\b",
        " ".join(words),
    )
    row = f"to_number({within_row(key)})" if key.textual else within_row(key)
    order = f"sort_by({path_of(question, prefix_of(key), '')}, &{row})"
    order = f"reverse({order})" if down else order
    return (
        f"{order}[].{within_row(shown)}",
        f"the list of {label_of(shown)} sorted by {label_of(key)}",
        "",
        "",
    )


_SORTS = ("sort", "sorted", "order", "ordered", "rank", "ranked", "arrange", "arranged")


def read_each(question: DocumentQuestion) -> tuple[str, str, str, str] | None:
    """`what does one of each cost?`"""
    words = plain(question.tokens)
    if "one of each" not in words and "one of every" not in words and "1 of each" not in words:
        return None
    priced = {"price", "cost"}
    fields = [
        field
        for field in question.fields
        if field.many and field.numeric and priced & set(name_stems(field.name))
    ]
    if len(fields) != 1:
        return None
    path = path_of(question, prefix_of(fields[0]), within_row(fields[0]))
    return f"sum({path})", f"the total of {label_of(fields[0])}{where_said(question)}", "sum", path


def read_map(question: DocumentQuestion) -> tuple[str, str, str, str] | None:
    """The extremes, sums and counts over an object whose values are all objects."""
    operator = fold_of(question)
    words = {token.text for token in question.tokens}
    if operator not in ("max", "min", "sum", "avg") or question.filters:
        return None
    for steps, rows in _maps(first_level(question.document), ()):
        names = dict.fromkeys(name for row in rows.values() for name in row)
        field = _measured(question, rows, list(names))
        if field is None:
            continue
        base = joined(steps)
        values = f"values({base})[].{quoted(field)}"
        label = {"max": "the highest", "min": "the lowest", "sum": "the total of", "avg": "the average of"}[
            operator
        ]
        about = f"{label} {' '.join(name_stems(field))}"
        if operator in ("max", "min") and words & {"which", "who", "whose", "what's"} | words & _asked_things(
            steps
        ):
            pairs = f"{{names: keys({base}), values: {values}}}"
            return pairs, f"the one with {about}", f"{operator}_name", ""
        fold = {"sum": "sum", "avg": "mean"}.get(operator, "")
        return f"{operator}({values})", about, fold, values if fold else ""
    return None


def _asked_things(steps: tuple[str, ...]) -> set[str]:
    return {stem(step) for step in steps} | {"item", "product"}


def _maps(value: Any, steps: tuple[str, ...]) -> list[tuple[tuple[str, ...], dict[str, dict[str, Any]]]]:
    """Objects of at least two objects that share a field, the outer ones first."""
    if not isinstance(value, dict):
        return []
    rows = {name: inner for name, inner in value.items() if isinstance(inner, dict)}
    alike = len(rows) == len(value) >= 2 and bool(set.intersection(*(set(row) for row in rows.values())))
    found = [(steps, rows)] if alike else []
    for name, inner in value.items():
        found += _maps(inner, (*steps, quoted(name)))
    return found


def _measured(question: DocumentQuestion, rows: dict[str, dict[str, Any]], names: list[str]) -> str | None:
    """The numeric field that the question means; the only one if it names none."""
    numeric = [name for name in names if all(is_number(row.get(name)) for row in rows.values())]
    scored = [(mention(Field(name, (), (0,)), question.free)[0], name) for name in numeric]
    best = max(scored, default=(0, ""))
    if best[0] >= 3:
        return best[1]
    synonyms = {word for name in names for word in SYNONYMS.get(name, ())}
    return numeric[0] if len(numeric) == 1 and not synonyms & set(question.free) else None


def named_extreme(text: str, fold: str) -> str | None:
    """The name whose value is the greatest or the least, out of the names and values that a query gave."""
    try:
        found = json.loads(text)
        names, values = found["names"], found["values"]
        chosen = (max if fold == "max_name" else min)(values)
    except (ValueError, KeyError, TypeError):
        return None
    owners = [str(name) for name, value in zip(names, values, strict=False) if value == chosen]
    return ", ".join(owners) if owners and len(names) == len(values) else None
