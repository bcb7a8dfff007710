"""Questions about a pasted document as path expressions."""

import re
from collections.abc import Sequence
from itertools import pairwise

from treadle_server.models.demo.arithmetic.formulas import Formula, Result, operation
from treadle_server.models.demo.arithmetic.words import Token, plain, stem
from treadle_server.models.demo.documents.documents import (
    Field,
    fields_of,
    first_level,
    is_list,
    is_object,
    name_stems,
    quoted,
)
from treadle_server.models.demo.documents.extremes import (
    ABOUT,
    Reading,
    names_collection,
    owner_of,
    read_extreme,
    row_products,
)
from treadle_server.models.demo.documents.filters import Filter, filters_in, mention, prefix_of, within_row
from treadle_server.models.demo.documents.paths import (
    FOLDS,
    DocumentQuestion,
    applicable,
    collection_of,
    fold_of,
    identity_of,
    label_of,
    mentioned_fields,
    numeric_field,
    path_of,
    where_said,
)
from treadle_server.models.demo.documents.shapes import (
    missing_field,
    read_each,
    read_keys,
    read_map,
    read_sorted,
)
from treadle_server.models.demo.tasks import Agenda, Query, RowTotal, Say

_ORDINALS = {"first": "0", "second": "1", "third": "2", "fourth": "3", "fifth": "4", "last": "-1"}

_DOCUMENT_WORDS = frozenset(
    {"json", "data", "document", "array", "object", "payload", "list", "above", "records", "rows", "entries"}
)


def read_inquiry(tokens: Sequence[Token], agenda: Agenda, *, answers: bool = True) -> list[Formula] | None:
    """Adds queries for everything the clause asks of the latest document; None if it asks nothing of it."""
    if not agenda.documents:
        return None
    document, named = _document(tokens, agenda)
    words = tuple(token for token in tokens if token.kind != "document")
    fields = fields_of(document)
    if not fields or not (
        (agenda.fresh and re.search(r"\bkeys\b|\bone of each\b", plain(words)))
        or _concerns(words, fields, named, fresh=agenda.fresh)
        or _explicit_path(words, document)
    ):
        return None
    found: list[Formula] = []
    for part in _parts(words, fields):
        value = _read_part(part, fields, document, agenda, answers)
        if value is None:
            return None
        found.append(value)
    if len(found) == 2 and {"difference", "gap", "range", "spread"} & {token.text for token in words}:
        return [operation("-", *found)]
    return found


def _document(tokens: Sequence[Token], agenda: Agenda) -> tuple[str, bool]:
    named = [int(token.text[1:-1]) for token in tokens if token.kind == "document"]
    said = any(token.text in _DOCUMENT_WORDS for token in tokens)
    return agenda.documents[named[-1] if named and named[-1] < len(agenda.documents) else -1], bool(
        named
    ) or said


def _concerns(words: Sequence[Token], fields: Sequence[Field], named: bool, *, fresh: bool) -> bool:
    """A document in the same text is easily meant, an earlier one only by the names of its fields."""
    if named:
        return True
    stems = [stem(token.text) for token in words]
    return any(mention(field, stems)[0] >= (3 if fresh else 6) for field in fields) or bool(
        filters_in(words, fields)
    )


def _parts(words: tuple[Token, ...], fields: Sequence[Field]) -> list[tuple[Token, ...]]:
    """`the highest and the lowest price` as two questions, each with its field."""
    cuts = [
        index
        for index, token in enumerate(words)
        if token.text in ("and", ",") and _fold_in(words[:index]) and _asks(words[index + 1 : index + 7])
    ]
    if not cuts:
        return [words]
    bounds = [0, *[cut + 1 for cut in cuts], len(words)]
    parts = [words[start : end - (end != len(words))] for start, end in pairwise(bounds)]
    parts = [part for part in parts if len(part) > 1 or (part and part[0].text in FOLDS)]
    tail = _tail(parts[-1], fields)
    return [part if _names_field(part, fields) else (*part, *tail) for part in parts]


def _asks(words: Sequence[Token]) -> bool:
    return any(
        FOLDS.get(token.text) in ("sum", "avg", "max", "min", "count") or token.text == "how"
        for token in words[:4]
    )


def _fold_in(words: Sequence[Token]) -> bool:
    return any(
        FOLDS.get(token.text) in ("sum", "avg", "max", "min", "count") or token.text == "many"
        for token in words
    )


def _names_field(part: Sequence[Token], fields: Sequence[Field]) -> bool:
    stems = [stem(token.text) for token in part]
    return any(mention(field, stems)[0] >= 3 for field in fields)


def _tail(part: Sequence[Token], fields: Sequence[Field]) -> tuple[Token, ...]:
    return tuple(token for token in part if token.text not in FOLDS)


def _read_part(
    words: Sequence[Token], fields: tuple[Field, ...], document: str, agenda: Agenda, answers: bool
) -> Formula | None:
    path = _explicit_path(words, document)
    if path:
        return agenda.result(Query(document, path, path, answers=answers))
    filters = tuple(filters_in(words, fields))
    if _unexplained(words, filters):
        return None
    question = DocumentQuestion(
        tuple(words), tuple(stem(token.text) for token in words), fields, filters, document
    )
    rows = row_products(question)
    if rows:
        query = agenda.add(Query(document, rows[0], rows[1], answers=False))
        return agenda.result(RowTotal(query, rows[1]))
    if told := missing_field(question):
        return Result(agenda.add(Say("told", told))) if answers else None
    for reading in (read_keys, read_sorted, read_each, read_map, _counted, read_extreme, _folded, _looked_up):
        task = reading(question)
        if task is not None:
            agenda.owner = owner_of(question, document)
            return agenda.result(Query(document, *task, answers=answers))
    return None


def _unexplained(words: Sequence[Token], filters: Sequence[Filter]) -> bool:
    """Whether a number of the question is neither in a condition nor a count of rows."""
    said = {index for item in filters for index in item.words}
    loose = [index for index, token in enumerate(words) if token.numeric and index not in said]
    beside = [{token.text for token in words[max(0, index - 1) : index + 3]} & set(FOLDS) for index in loose]
    return any(words[index].kind == "percent" for index in loose) or not all(beside)


def _explicit_path(words: Sequence[Token], document: str) -> str:
    top = first_level(document)
    for token in words:
        text = token.typed if token.kind == "word" else token.text
        if not re.fullmatch(r"[\w-]+(?:\.[\w-]+|\[\d*\])+|\[\d+\](?:\.[\w-]+|\[\d*\])*", text):
            continue
        first = re.split(r"[.\[]", text)[0]
        if isinstance(top, dict) and first in top:
            return re.sub(r"[\w-]*-[\w-]*", lambda match: quoted(match.group()), text)
    return ""


def _folded(question: DocumentQuestion) -> Reading | None:
    operator = fold_of(question)
    if not operator and question.filters and {"how", "much"} <= {token.text for token in question.tokens}:
        operator = "sum"
    if operator not in ("sum", "avg"):
        return None
    field = numeric_field(question)
    if field is None:
        return None
    path = path_of(question, prefix_of(field), within_row(field))
    if not field.many:
        return path, f"the {label_of(field)}", "", ""
    about = f"{ABOUT[operator]} {label_of(field)}{where_said(question)}"
    values = f"map(&to_number(@), {path})" if field.textual else path
    return f"{operator}({values})", about, "mean" if operator == "avg" else "sum", path


def _counted(question: DocumentQuestion) -> Reading | None:
    words = [token.text for token in question.tokens]
    many = "how many" in " ".join(words)
    if not many and fold_of(question) != "count":
        return None
    prefix = collection_of(question)
    stems = question.free
    if many or prefix:
        amount = [field for field in question.fields if field.numeric and mention(field, stems)[0] >= 10]
        asked = [
            field
            for field in amount
            if field.many and _asked_amount(question, field) and applicable(question, prefix_of(field))
        ]
        if asked:
            path = path_of(question, prefix_of(asked[0]), within_row(asked[0]))
            return f"sum({path})", f"the total of {label_of(asked[0])}{where_said(question)}", "sum", path
        if amount and (question.filters or not amount[0].many) and not names_collection(prefix, stems):
            return None
        held = _quantity_beside(question, prefix) if many else None
        if held is not None:
            path = path_of(question, prefix_of(held), within_row(held))
            return f"sum({path})", f"the {label_of(held)}{where_said(question)}", "sum", path
    if prefix is None:
        return None
    name = prefix[-1].removesuffix("[]") or "entries"
    return f"length({path_of(question, prefix, '')})", f"the number of {name}{where_said(question)}", "", ""


def _quantity_beside(question: DocumentQuestion, prefix: tuple[str, ...] | None) -> Field | None:
    """The field that says how many pens a line is for, when the question names pens and not lines."""
    if prefix is None or not question.filters or names_collection(prefix, question.free):
        return None
    fields = [field for field in question.fields if prefix_of(field) == prefix and field.numeric]
    return next(
        (field for field in fields if set(name_stems(field.name)) & {"qty", "quantity", "count", "stock"}),
        None,
    )


def _asked_amount(question: DocumentQuestion, field: Field) -> bool:
    """Whether `how many points` means the sum of a field `points`."""
    words = [stem(token.text) for token in question.tokens]
    at = words.index("many") if "many" in words else -1
    return at >= 0 and bool(set(words[at + 1 : at + 3]) & set(name_stems(field.name)))


def _looked_up(question: DocumentQuestion) -> Reading | None:
    mentioned = mentioned_fields(question, numeric=False)
    lists = [field for field in question.fields if is_list(field) and mention(field, question.free)[0] >= 10]
    objects = [
        field for field in question.fields if is_object(field) and mention(field, question.free)[0] >= 10
    ]
    index = next((_ORDINALS[word] for word in question.free if word in _ORDINALS), "")
    if not mentioned and not question.filters and not index:
        whole = (lists or objects)[:1]
        return (whole[0].path, f"the {label_of(whole[0])}", "", "") if whole else None
    if index and len(mentioned) > 1:
        at = next(place for place, word in enumerate(question.free) if word in _ORDINALS)
        mentioned = [field for field in mentioned if mention(field, question.free)[1] != at + 1] or mentioned
    target = _narrowed(mentioned, objects, question) if mentioned else None
    if target is None:
        return _rows_themselves(question, index)
    prefix = prefix_of(target)
    if index and target.many:
        rows = path_of(question, prefix, "")
        listed = rows.removesuffix("[]") or "@"
        return (
            f"{listed}[{index}].{within_row(target)}",
            f"the {label_of(target)} of the {_word_of(index)} entry",
            "",
            "",
        )
    path = path_of(question, prefix, within_row(target))
    return path, f"the {label_of(target)}{where_said(question)}", "", ""


def _word_of(index: str) -> str:
    return next(word for word, value in _ORDINALS.items() if value == index)


def _narrowed(mentioned: list[Field], objects: list[Field], question: DocumentQuestion) -> Field:
    """Of fields with one name, the one below an object that the question mentions too."""
    best = mentioned[0]
    same = [field for field in mentioned if name_stems(field.name) == name_stems(best.name)]
    for field in same:
        above = {part for step in field.parents for part in name_stems(step.removesuffix("[]"))}
        if above & set(question.free):
            best = field
    deeper = [field for field in mentioned if best.name and best.name in field.parents]
    return deeper[0] if deeper else best


def _rows_themselves(question: DocumentQuestion, index: str) -> Reading | None:
    prefix = collection_of(question)
    if prefix is None:
        return None
    rows = path_of(question, prefix, "")
    if index:
        return f"{rows.removesuffix('[]') or '@'}[{index}]", f"the {_word_of(index)} entry", "", ""
    if not question.filters:
        return None
    identity = identity_of(question, prefix, question.filters[0].field)
    row = within_row(identity) if identity else ""
    about = (
        f"the {label_of(identity)}{where_said(question)}"
        if identity
        else f"the entries{where_said(question)}"
    )
    return path_of(question, prefix, row), about, "", ""


def value_of(tokens: Sequence[Token], agenda: Agenda) -> Formula | None:
    """A single value of a document, for arithmetic or a note; a whole column is none."""
    found = read_inquiry(tokens, agenda, answers=False)
    if not found or len(found) != 1:
        return None
    task = agenda.tasks[found[0].task] if isinstance(found[0], Result) else None
    if isinstance(task, Query) and "[]" in task.query and not _FOLDING.match(task.query):
        return None
    return found[0]


_FOLDING = re.compile(r"(?:sum|avg|max|min|length|max_by|min_by)\(")
