"""Which rows of a document a question means: `paid`, `older than 30`, `in the category books`."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from treadle_server.models.demo.arithmetic.words import Token, plain, stem
from treadle_server.models.demo.documents.documents import Field, joined, name_stems, quoted

_OPERATORS = (
    (r"(?:not|n't) (?:more|greater|higher|bigger) than|at most|no more than|up to|maximum of|<=", "<="),
    (r"(?:not|n't) (?:less|fewer|lower|smaller) than|at least|no less than|minimum of|or more|>=", ">="),
    (
        r"(?:more|greater|higher|bigger|larger|older|longer|heavier|taller|better) than|over|"
        r"above|exceed\w*|beyond|after|>",
        ">",
    ),
    (
        r"(?:less|fewer|lower|smaller|younger|shorter|lighter|cheaper|worse) than|under|below|"
        r"beneath|before|<",
        "<",
    ),
    (r"exactly|equal to|equals|equal|of exactly|=", "=="),
)
_HINTS = {
    "older": "age",
    "younger": "age",
    "old": "age",
    "cheaper": "price",
    "heavier": "weight",
    "lighter": "weight",
    "taller": "height",
}
_NEGATIONS = frozenset({"not", "n't", "isn't", "aren't", "without", "non", "un", "no"})
SYNONYMS: dict[str, tuple[str, ...]] = {
    "price": ("cost", "expensive", "cheap", "cheapest", "priciest", "pricey", "costly", "unit"),
    "cost": ("price", "expensive", "cheapest"),
    "amount": ("value", "sum", "money", "amt"),
    "value": ("amount", "worth"),
    "total": ("amount", "worth"),
    "age": ("old", "oldest", "young", "youngest", "older", "younger"),
    "quantity": ("qty", "unit", "piece", "count"),
    "qty": ("quantity", "unit", "piece"),
    "count": ("quantity",),
    "salary": ("earn", "paid", "pay", "wage", "income", "highest-paid", "earner"),
    "score": ("point", "mark", "result"),
    "point": ("score",),
    "weight": ("heavy", "heaviest", "lightest", "weigh"),
    "height": ("tall", "tallest", "shortest"),
    "population": ("inhabitant", "populous"),
    "name": ("called",),
    "t": ("time",),
    "ts": ("time",),
    "timestamp": ("time", "when"),
    "date": ("when", "day"),
    "stock": ("inventory",),
    "duration": ("long", "longest", "shortest"),
    "hour": ("time",),
    "completed": ("finished", "done", "complete"),
    "done": ("finished", "completed", "complete"),
    "active": ("enabled",),
    "finished": ("done", "completed", "complete"),
    "paid": ("settled",),
    "temp": ("temperature", "hot", "hottest", "cold", "coldest", "warmest"),
    "temperature": ("temp", "hot", "hottest", "coldest", "warmest"),
    "department": ("dept", "team"),
    "dept": ("department",),
}


@dataclass(frozen=True, slots=True)
class Filter:
    """A condition on the objects of one list."""

    prefix: tuple[str, ...]
    """The list's own path."""
    condition: str
    said: str
    field: Field
    words: frozenset[int]
    """Positions of the tokens that said it."""


def prefix_of(field: Field) -> tuple[str, ...]:
    """The path of the innermost list that holds the field."""
    last = max((index for index, step in enumerate(field.parents) if step.endswith("[]")), default=-1)
    return field.parents[: last + 1]


def within_row(field: Field) -> str:
    """The field's path from the object of its list."""
    steps = field.parents[len(prefix_of(field)) :]
    return joined((*steps, quoted(field.name))) if field.name else "@"


def mention(field: Field, stems: Sequence[str]) -> tuple[int, int]:
    """How strongly the words mention the field, and where; (0, -1) when they do not."""
    names = (
        name_stems(field.name or field.parents[-1].removesuffix("[]")) if field.name or field.parents else ()
    )
    if not names:
        return 0, -1
    for at in range(len(stems) - len(names) + 1):
        if tuple(stems[at : at + len(names)]) == names:
            return 10 + len(names), at
    whole = "".join(names)
    for at, word in enumerate(stems):
        if word == whole:
            return 10, at
    for name in reversed(names):
        if name in ("in", "is", "has", "of", "at", "on", "to", "by", "the"):
            continue
        alternatives = (name, *SYNONYMS.get(name, ()))
        for at, word in enumerate(stems):
            if word in alternatives:
                return (6 if word == name else 3), at
    return 0, -1


def filters_in(tokens: Sequence[Token], fields: Sequence[Field]) -> list[Filter]:
    stems = [stem(token.text) if token.kind == "word" else token.text.lower() for token in tokens]
    found: list[Filter] = []
    for reading in (_comparisons, _values, _booleans, _empties):
        for item in reading(tokens, stems, [field for field in fields if field.many]):
            if not any(item.words & other.words for other in found):
                found.append(item)
    return found


def _comparisons(tokens: Sequence[Token], stems: list[str], fields: list[Field]) -> list[Filter]:
    found = []
    for at, token in enumerate(tokens):
        if token.kind != "number":
            continue
        operator, begins = _operator_before(tokens, at)
        field, said_at = _compared_field(stems, fields, at, begins, bool(operator))
        if field is None:
            field, said_at = _numbered(stems, fields, at), at - 1
        if field is None:
            continue
        operator = operator or "=="
        row = within_row(field)
        left = f"to_number({row})" if field.textual else row
        condition = f"{left} {operator} `{token.text}`"
        signs = {
            "==": "is",
            ">": "is more than",
            "<": "is less than",
            ">=": "is at least",
            "<=": "is at most",
        }
        said = f"{field.name or 'the value'} {signs[operator]} {token.text}"
        words = frozenset({*range(begins, at + 1), *({said_at} if said_at >= 0 else set())})
        found.append(Filter(prefix_of(field), condition, said, field, words))
    return found


def _numbered(stems: list[str], fields: list[Field], at: int) -> Field | None:
    """The id that `user 7` means in a list of users."""
    for field in fields:
        names = name_stems(prefix_of(field)[-1].removesuffix("[]"))
        if (
            at
            and names
            and stems[at - 1] == names[-1]
            and name_stems(field.name)[-1:] in (("id",), ("number",), ("no",))
        ):
            return field
    return None


def _operator_before(tokens: Sequence[Token], at: int) -> tuple[str, int]:
    before = plain(tokens[:at])
    for pattern, operator in _OPERATORS:
        match = re.search(rf"(?:^|\s)(?:{pattern})(?: (?:a|an|the|of|to|is|than))?$", before)
        if match:
            words = len(before[: match.start()].split())
            return operator, words
    after = plain(tokens[at + 1 : at + 3])
    if after.startswith(("or more", "or above", "or higher", "or older")):
        return ">=", at
    return ("<=", at) if after.startswith(("or less", "or below", "or fewer")) else ("", at)


def _compared_field(
    stems: list[str], fields: list[Field], at: int, begins: int, compared: bool
) -> tuple[Field | None, int]:
    """The field beside the number; with a comparison it may stand further off or be left out."""
    hint = next((_HINTS[word] for word in stems[begins:at] if word in _HINTS), "")
    numeric = [field for field in fields if field.numeric or field.textual]
    best: tuple[int, Field | None, int] = (0, None, -1)
    for field in numeric:
        low = 0 if compared else max(0, at - 3)
        window = stems[low:begins]
        strength, position = mention(field, window)
        if hint and hint in name_stems(field.name):
            strength, position = 20, -1
        if not compared and (strength < 10 or position + len(name_stems(field.name)) < len(window) - 1):
            strength = 0
        closeness = strength * 10 - (len(window) - position if position >= 0 else 0)
        if strength and closeness > best[0]:
            best = (closeness, field, position + low if position >= 0 else -1)
    if best[1] is None and compared:
        plausible = [field for field in numeric if "id" not in name_stems(field.name)]
        after = [field for field in plausible if mention(field, stems[at + 1 : at + 4])[0]]
        chosen = after or plausible
        return (chosen[0], -1) if len(chosen) == 1 else (None, -1)
    return best[1], best[2]


def _values(tokens: Sequence[Token], stems: list[str], fields: list[Field]) -> list[Filter]:
    """Texts of the document that the question mentions, longest first."""
    words = [token.text.lower() for token in tokens]
    found: list[Filter] = []
    candidates = [
        (sample, field)
        for field in fields
        for sample in dict.fromkeys(sample for sample in field.samples if isinstance(sample, str))
        if sample.strip() and not re.fullmatch(r"-?\d+(\.\d+)?", sample)
    ]
    for sample, field in sorted(candidates, key=lambda pair: len(pair[0]), reverse=True):
        where = _position(sample, tokens, stems)
        if (
            where
            and sample.isupper()
            and len(sample) < 4
            and "".join(tokens[at].typed for at in sorted(where)).strip("\"'") != sample
        ):
            continue
        if where is None or any(where & other.words for other in found):
            continue
        negated = min(where) > 0 and bool(_NEGATIONS & set(words[max(0, min(where) - 2) : min(where)]))
        row, prefix = within_row(field), prefix_of(field)
        literal = "'" + sample.replace("\\", "\\\\").replace("'", "\\'") + "'"
        condition = f"{row} {'!=' if negated else '=='} {literal}"
        said = f"{field.name or 'the value'} is {'not ' if negated else ''}{sample}"
        outer = prefix_of(Field("", prefix[:-1], ()))
        if not field.name and outer:
            inner = joined((*prefix[len(outer) : -1], prefix[-1].removesuffix("[]")))
            condition = f"{'!' if negated else ''}contains({inner}, {literal})"
            said, prefix = f"{prefix[-1].removesuffix('[]')} hold {sample}", outer
        beside = {
            at for at in range(max(0, min(where) - 3), min(where)) if stems[at] in name_stems(field.name)
        }
        found.append(Filter(prefix, condition, said, field, frozenset(where | beside)))
    return found


def _position(sample: str, tokens: Sequence[Token], stems: list[str]) -> set[int] | None:
    """The tokens that together spell the sample, however they were cut."""
    wanted = sample.lower().replace(" ", "")
    single = len(sample.split()) == 1 and sample.isalpha()
    for at in range(len(tokens)):
        if single and len(sample) > 1 and stems[at] == stem(sample):
            return {at}
        spelled = ""
        for end in range(at, min(at + 8, len(tokens))):
            token = tokens[end]
            spelled += (token.text if token.kind == "quote" else token.typed).lower().replace(" ", "")
            quoted_or_long = token.kind == "quote" or len(wanted) > 1
            if quoted_or_long and wanted in (spelled, spelled.removesuffix("'s")):
                return set(range(at, end + 1))
    return None


def _empties(tokens: Sequence[Token], stems: list[str], fields: list[Field]) -> list[Filter]:
    """`out of stock`, `no stock left`: a number that is 0."""
    found = []
    for field in fields:
        for at in range(1, len(stems)):
            said = stems[max(0, at - 2) : at] == ["out", "of"] or stems[at - 1] in ("no", "zero")
            if field.numeric and said and stems[at] in name_stems(field.name):
                words = frozenset(range(max(0, at - 2), at + 1))
                found.append(
                    Filter(
                        prefix_of(field), f"{within_row(field)} == `0`", f"{field.name} is 0", field, words
                    )
                )
    return found


def _booleans(tokens: Sequence[Token], stems: list[str], fields: list[Field]) -> list[Filter]:
    found = []
    for field in fields:
        if not field.boolean:
            continue
        names = [name for name in name_stems(field.name) if name not in ("is", "has", "in")]
        for at, word in enumerate(stems):
            known = {name for base in names for name in (base, *SYNONYMS.get(base, ()))}
            denied = word in {prefix + name for name in known for prefix in ("un", "in", "non-", "in-", "in")}
            spelled = word in known or any(len(name) > 4 and word.startswith(name) for name in names)
            if not denied and not spelled:
                continue
            before = {token.text for token in tokens[max(0, at - 2) : at]}
            said_false = "false" in stems[at + 1 : at + 3]
            wanted = not (denied or said_false or bool(before & _NEGATIONS))
            around = {
                index
                for index in range(max(0, at - 2), min(at + 2, len(stems)))
                if stems[index] in name_stems(field.name)
            }
            words = frozenset(
                {
                    at,
                    *around,
                    *(
                        index
                        for index in range(at, min(at + 3, len(stems)))
                        if stems[index] in ("is", "true", "false")
                    ),
                }
            )
            text = json.dumps(wanted)
            found.append(
                Filter(
                    prefix_of(field),
                    f"{within_row(field)} == `{text}`",
                    f"{field.name} is {text}",
                    field,
                    words,
                )
            )
            break
    return found
