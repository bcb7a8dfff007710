"""What words stand for in arithmetic: the last result, a stated fact, a note, a value of a document."""

import re
from collections.abc import Callable, Sequence

from treadle_server.models.demo import notes
from treadle_server.models.demo.arithmetic.formulas import Formula, Number
from treadle_server.models.demo.arithmetic.words import Token, plain, tokens_of
from treadle_server.models.demo.clocks.times import gap_value
from treadle_server.models.demo.documents.inquiries import value_of
from treadle_server.models.demo.tasks import Agenda

IT = re.compile(
    r"^(?:it|that|this|them|those|its value|(?:the|that|this|your|my)? ?(?:previous |last |"
    r"final |first |above |new |whole |resulting )?(?:result|answer|total|sum|number|"
    r"amount|value|outcome|product|difference|average|quotient|figure|count|remainder|"
    r"price)(?: so far| above)?)$"
)


def resolver(agenda: Agenda) -> Callable[[Sequence[Token]], Formula | None]:
    def resolve(tokens: Sequence[Token]) -> Formula | None:
        text = plain(tokens)
        if IT.match(text) and (agenda.last is not None or agenda.subject):
            return (
                agenda.last
                if agenda.last is not None
                else agenda.recall(agenda.subject, agenda.subject, answers=False)
            )
        fact = _known(text, agenda)
        if fact is not None:
            return fact
        gap = gap_value(" ".join(token.typed for token in tokens), agenda)
        if gap is not None:
            return gap
        if _names_note(text) or _noted(text, agenda):
            phrase = re.sub(r"^(?:the )?(?:note|value|number) (?:called|named|under|of|for) ", "", text)
            return agenda.recall(notes.key_of(phrase), phrase, answers=False)
        loose = len(tokens) < 2 or any(token.text == "by" for token in tokens)
        return value_of(tokens, agenda) if agenda.documents and not loose else None

    return resolve


def _names_note(text: str) -> bool:
    """`my locker number`: a short name and nothing else."""
    return bool(
        re.match(
            r"^(?:my|our)(?: (?!(?:is|are|was|be|by|from|to|and|of|after|before|if|when|has|have|"
            r"lives?|in|at|with|or|on)\b)[a-z][\w'-]*){1,4}$",
            text,
        )
    )


def _known(text: str, agenda: Agenda) -> Formula | None:
    """A number the user stated in this conversation without having it stored."""
    value = agenda.facts.get(notes.key_of(text), "") if notes.key_of(text) else ""
    tokens = tokens_of(value)
    numbers = [token.text for token in tokens if token.kind == "number"]
    return Number(numbers[0]) if len(numbers) == 1 else None


def _noted(text: str, agenda: Agenda) -> bool:
    if len(text.split()) > 9 or re.search(r"\d", text):
        return False
    if re.search(
        r"\b(?:note|i (?:told|saved|stored|asked|gave)|you (?:remember|stored|saved)|"
        r"remembered|stored|saved)\b",
        text,
    ):
        return True
    key = notes.key_of(text)
    stored = {getattr(agenda.tasks[index], "key", "") for index in agenda.stores}
    return bool(key) and key in stored
