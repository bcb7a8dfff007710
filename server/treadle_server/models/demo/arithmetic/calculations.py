"""Clauses that ask for a calculation: questions for a value and orders such as `add 5 to it`."""

import re
from collections.abc import Sequence

from treadle_server.models.demo.arithmetic.formulas import (
    Formula,
    number,
    operation,
)
from treadle_server.models.demo.arithmetic.orders import (
    read_order,
)
from treadle_server.models.demo.arithmetic.phrases import Phrase, Resolve, Unreadable
from treadle_server.models.demo.arithmetic.words import Token

_LEADS_TEXT = """
please; hi; hello; hey; ok; okay; so; now; well; also; and; but; then; next; finally; lastly;
first; second; third; afterwards; after that; thereafter; once done; when done; i; we; i wonder;
what about; how about; what would i get if i; what do i get when i; what would i get when i;
what will i get if i; what will i get when i;
what do we get if we; what do we get when we; what would you get if you; what comes out when i;
what comes out if i; what happens when i; what happens if i; what is the result if i;
what is the result when i; if i; how much would i have if i; quickly; just;
instead; actually; can you; could you; would you; will you; can you please; i want to know;
i want you to; i need you to; i need to know; i need; i would like to know; i'd like to know;
i would like you to; i'd like you to; let us; let's; help me; tell me; give me; show me;
let me know; do you know; you; me; us; what is; what's; whats; what are; what do you get if you;
what do you get when you; what do i get if i; what do you get by; what would; what will;
what does; what do; how much is; how much are; how much would; how many is; how much does;
calculate; compute; work out; figure out; evaluate; determine; solve; find; find out; get;
report; say; answer; the result of; the value of; the answer to; the outcome of; result of;
value of; then tell me; the final; be; if you; what number is; which number is;
what number do you get if you; what happens if you; what comes out if you; the expression;
this expression; the following; this calculation; the calculation; this; do the math; do
"""

_TAILS_TEXT = """
?; .; !; =; :; please; equal; equals; equal to; for me; now; exactly; altogether; in total; be;
make; come to; add up to; thanks; thank you; as a number; instead; work out to; give; is; worth;
then; too; as well; get; give you; amount to; and tell me the result; and give me the result;
and tell me the answer; and tell me; and report the result; and report it;
and give me the answer; and show me the result; and answer; step by step; using the calculator;
with the calculator
"""


def _phrases(text: str) -> list[tuple[str, ...]]:
    """The phrases of a text that separates them by semicolons, the longest first."""
    return sorted(
        (tuple(phrase.split()) for phrase in re.split(r";\s", text) if phrase.strip()), key=len, reverse=True
    )


_LEADS_BY_LENGTH = _phrases(_LEADS_TEXT)

_TAILS_BY_LENGTH = _phrases(_TAILS_TEXT)


def stripped(tokens: Sequence[Token]) -> tuple[Token, ...]:
    """The clause without what people say around a request."""
    found = tuple(tokens)
    while found:
        texts = tuple(token.text for token in found)
        lead = next((lead for lead in _LEADS_BY_LENGTH if texts[: len(lead)] == lead), ())
        tail = next((tail for tail in _TAILS_BY_LENGTH if texts[-len(tail) :] == tail), ())
        if texts[0] in (",", ":", ".", "!", ";"):
            lead = (texts[0],)
        if texts[-1] in (",", ";"):
            tail = (texts[-1],)
        if not lead and not tail:
            break
        found = found[len(lead) :] if lead else found[: -len(tail)]
    return found


def read_calculation(tokens: Sequence[Token], last: Formula | None, resolve: Resolve) -> Formula | None:
    """The formula that the whole clause asks for, None if any of its words is something else."""
    for candidate in _candidates(tokens):
        if not candidate:
            continue
        for reading in _READINGS:
            phrase = Phrase(candidate, resolve)
            try:
                value = reading(phrase, last)
            except Unreadable:
                continue
            phrase.skip("?", ".", "!", "please")
            if value is not None and phrase.ended():
                return value
    return None


def _candidates(tokens: Sequence[Token]) -> list[tuple[Token, ...]]:
    core = stripped(tokens)
    found = [core] if core == tuple(tokens) else [core, tuple(tokens)]
    texts = [token.text for token in core]
    if texts[:1] == ["what"] and "is" in texts[2:6]:
        at = texts.index("is", 2)
        found.append((*core[1:at], *core[at + 1 :]))
    found += [
        tuple(token for token in part if token.kind != "document")
        for part in found
        if any(token.kind == "document" for token in part)
    ]
    return [stripped(part) if part[-1:] and part[-1].text == ":" else part for part in found]


def _operator_first(phrase: Phrase, last: Formula | None) -> Formula | None:
    """`times 4`, `minus 10%`, `squared`: said of the last result."""
    word = phrase.word()
    operators = (
        "plus",
        "minus",
        "times",
        "multiplied",
        "divided",
        "increased",
        "decreased",
        "reduced",
        "squared",
        "cubed",
        "doubled",
        "tripled",
        "halved",
        "less",
        "to",
        "raised",
        "*",
        "/",
        "+",
        "-",
    )
    if last is None or word not in operators:
        return None
    carried = Phrase(
        (_HOLE, *phrase.tokens), lambda words: last if tuple(words) == (_HOLE,) else phrase._resolve(words)
    )
    value = carried.expression()
    phrase.at = carried.at - 1
    return value


_HOLE = Token("word", "⟨last⟩", "⟨last⟩")


def _ratio_question(phrase: Phrase, last: Formula | None) -> Formula | None:
    """`what percent of 80 is 20`, `20 is what percent of 80`."""
    words = ("what",), ("which",)
    if phrase.accept(*words) or phrase.word() in ("percent", "percentage"):
        if not phrase.accept(("percent", "of"), ("percentage", "of"), ("fraction", "of")):
            return None
        whole = phrase.expression()
        if not phrase.accept(("is",), ("are",), ("do",), ("does",)):
            return None
        return _share(phrase.expression(), whole)
    part = phrase.expression()
    if not phrase.accept(
        ("is", "what"), ("are", "what"), ("as", "a"), ("is", "how", "many"), ("make", "what")
    ):
        return None
    if not phrase.accept(("percent", "of"), ("percentage", "of")):
        return None
    return _share(part, phrase.expression())


def _share(part: Formula, whole: Formula) -> Formula:
    return operation("*", operation("/", part, whole), number(100))


def _change_question(phrase: Phrase, last: Formula | None) -> Formula | None:
    """`the percent increase from 50 to 65`."""
    phrase.skip("the", "a")
    if not phrase.accept(("percent",), ("percentage",)) or phrase.word() not in (
        "change",
        "increase",
        "decrease",
        "growth",
        "drop",
        "reduction",
        "rise",
    ):
        return None
    falls = phrase.word() in ("decrease", "drop", "reduction")
    phrase.at += 1
    phrase.skip("when", "going", "if", "you", "go")
    if not phrase.accept(("from",)):
        return None
    before = phrase.expression()
    if not phrase.accept(("to",)):
        return None
    after = phrase.expression()
    moved = operation("-", before, after) if falls else operation("-", after, before)
    return _share(moved, before)


def _exceeds(phrase: Phrase, last: Formula | None) -> Formula | None:
    """`by how much does 85 exceed 47`."""
    if not phrase.accept(("by", "how", "much", "does"), ("by", "how", "much", "is"), ("how", "much", "does")):
        return None
    left = phrase.expression()
    if not phrase.accept(
        ("exceed",), ("more", "than"), ("greater", "than"), ("larger", "than"), ("bigger", "than")
    ):
        return None
    return operation("-", left, phrase.expression())


def _fits(phrase: Phrase, last: Formula | None) -> Formula | None:
    """`how many times does 7 go into 84`."""
    if not phrase.accept(("how", "many", "times", "does"), ("how", "many", "times", "do")):
        return None
    part = phrase.expression()
    if not phrase.accept(("go", "into"), ("fit", "into"), ("fit", "in"), ("go", "in")):
        return None
    return operation("/", phrase.expression(), part)


def _more_than(phrase: Phrase, last: Formula | None) -> Formula | None:
    """`how much more is 84 than 59`, `how much bigger is ...`."""
    fewer = phrase.word(2) in ("less", "smaller", "lower", "fewer")
    if not phrase.accept(
        *[
            ("how", "much", word)
            for word in ("more", "bigger", "larger", "greater", "higher", "less", "smaller", "lower")
        ]
    ):
        return None
    phrase.skip("is", "are")
    left = phrase.expression()
    if not phrase.accept(("than",)):
        return None
    right = phrase.expression()
    return operation("-", right, left) if fewer else operation("-", left, right)


def _pick(phrase: Phrase, last: Formula | None) -> Formula | None:
    """`which is larger, 3 * 4 or 2 ** 4`."""
    if not phrase.accept(
        ("which", "is"), ("which", "number", "is"), ("which", "one", "is"), ("what", "is"), ("is",)
    ):
        return None
    phrase.skip("the")
    large = phrase.word() in (
        "larger",
        "bigger",
        "greater",
        "more",
        "higher",
        "largest",
        "biggest",
        "greatest",
    )
    if not large and phrase.word() not in ("smaller", "less", "lower", "smallest", "least", "lowest"):
        return None
    phrase.at += 1
    phrase.skip(",", ":")
    parts = [phrase.expression()]
    while phrase.accept((",", "or"), ("or",), (",",)):
        parts.append(phrase.expression())
    return operation("max" if large else "min", *parts) if len(parts) > 1 else None


def _left_after(phrase: Phrase, last: Formula | None) -> Formula | None:
    """`how much is left of my salary after rent`."""
    if not phrase.accept(
        ("how", "much", "is", "left", "of"),
        ("how", "much", "is", "left", "from"),
        ("left", "of"),
        ("left", "from"),
        ("remains", "of"),
        ("how", "much", "remains", "of"),
        ("how", "much", "of"),
    ):
        return None
    whole = phrase.primary()
    phrase.accept(("is", "left"), ("remains",), ("do", "i", "have", "left"), ("will", "be", "left"))
    if not phrase.accept(
        ("after", "paying"),
        ("after",),
        ("without",),
        ("when", "i", "subtract"),
        ("if", "i", "pay"),
        ("once", "i", "pay"),
    ):
        return None
    return operation("-", whole, phrase.expression())


def _value(phrase: Phrase, last: Formula | None) -> Formula | None:
    phrase.accept(
        ("start", "with"),
        ("start", "from"),
        ("begin", "with"),
        ("start", "at"),
        ("starting", "from"),
        ("starting", "with"),
        ("beginning", "with"),
    )
    mark = phrase.at
    if phrase.accept(("number",), ("a", "number"), ("the", "number")) and not phrase.word()[:1].isdigit():
        phrase.at = mark
    return phrase.expression()


_SENSES = {
    **dict.fromkeys(("more", "greater", "bigger", "larger", "higher", "over", "above", ">"), "more"),
    **dict.fromkeys(("less", "smaller", "lower", "fewer", "under", "below", "<"), "less"),
}


def read_comparison(tokens: Sequence[Token], resolve: Resolve) -> tuple[Formula, str] | None:
    """`is 17 * 3 more than 50`: the difference, and whether it should be `more` or `less` than nothing."""
    words = [token for token in tokens if token.text not in ("?", ".")]
    if not words or words[0].text not in ("is", "are"):
        return None
    at = next((index for index, token in enumerate(words) if token.text in _SENSES), 0)
    after = words[at + 1 :]
    right = after[1:] if after[:1] and after[0].text == "than" else after
    left, other = (read_calculation(part, None, resolve) for part in (words[1:at], right))
    if not at or left is None or other is None:
        return None
    return operation("-", left, other), _SENSES[words[at].text]


_READINGS = (
    _ratio_question,
    _change_question,
    _fits,
    _exceeds,
    _more_than,
    _pick,
    _left_after,
    read_order,
    _operator_first,
    _value,
)
