"""Clauses that ask for a calculation: questions for a value and orders such as `add 5 to it`."""

from collections.abc import Callable, Sequence

from treadle_server.models.demo.formulas import (
    Formula,
    grown,
    number,
    operation,
    shrunk,
)
from treadle_server.models.demo.phrases import Phrase, Resolve, Unreadable
from treadle_server.models.demo.words import Token

_LEADS = tuple(
    tuple(lead.split())
    for lead in ["please", "hi", "hello", "hey", "ok", "okay", "so", "now", "well", "also", "and", "but", "then", "next", "finally", "lastly", "first", "second", "third", "afterwards", "after that", "thereafter", "once done", "when done", "i", "we", "i wonder", "what would i get if i", "if i", "how much would i have if i", "quickly", "just", "instead", "actually", "can you", "could you", "would you", "will you", "can you please", "i want to know", "i want you to", "i need you to", "i need to know", "i need", "i would like to know", "i'd like to know", "i would like you to", "i'd like you to", "let us", "let's", "help me", "tell me", "give me", "show me", "let me know", "do you know", "you", "me", "us", "what is", "what's", "whats", "what are", "what do you get if you", "what do you get when you", "what do i get if i", "what do you get by", "what would", "what will", "what does", "what do", "how much is", "how much are", "how much would", "how many is", "how much does", "calculate", "compute", "work out", "figure out", "evaluate", "determine", "solve", "find", "find out", "get", "report", "say", "answer", "the result of", "the value of", "the answer to", "the outcome of", "result of", "value of", "then tell me", "the final", "be", "if you", "what number is", "which number is", "what number do you get if you", "what happens if you", "what comes out if you", "the expression", "this expression", "the following", "this calculation", "the calculation", "this", "do the math", "do"]
)
_TAILS = tuple(
    tuple(tail.split())
    for tail in ["?", ".", "!", "=", ":", "please", "equal", "equals", "equal to", "for me", "now", "exactly", "altogether", "in total", "be", "make", "come to", "add up to", "thanks", "thank you", "as a number", "instead", "work out to", "give", "is", "worth", "then", "too", "as well", "get", "give you", "amount to", "and tell me the result", "and give me the result", "and tell me the answer", "and tell me", "and report the result", "and report it", "and give me the answer", "and show me the result", "and answer", "step by step", "using the calculator", "with the calculator"]
)
_LEADS_BY_LENGTH = sorted(_LEADS, key=len, reverse=True)
_TAILS_BY_LENGTH = sorted(_TAILS, key=len, reverse=True)


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
    found += [tuple(token for token in part if token.kind != "document") for part in found if any(token.kind == "document" for token in part)]
    return [stripped(part) if part[-1:] and part[-1].text == ":" else part for part in found]


def _operator_first(phrase: Phrase, last: Formula | None) -> Formula | None:
    """`times 4`, `minus 10%`, `squared`: said of the last result."""
    word = phrase.word()
    operators = ("plus", "minus", "times", "multiplied", "divided", "increased", "decreased", "reduced", "squared", "cubed", "doubled", "tripled", "halved", "less", "to", "raised", "*", "/", "+", "-")
    if last is None or word not in operators:
        return None
    carried = Phrase((_HOLE, *phrase.tokens), lambda words: last if tuple(words) == (_HOLE,) else phrase._resolve(words))
    value = carried.expression()
    phrase.at = carried.at - 1
    return value


_HOLE = Token("word", "⟨last⟩", "⟨last⟩")


def _order(phrase: Phrase, last: Formula | None) -> Formula | None:
    verb = phrase.word()
    handler = _ORDERS.get(verb)
    if handler is None:
        return None
    phrase.at += 1
    return handler(phrase, last)


def _needed(value: Formula | None) -> Formula:
    if value is None:
        raise Unreadable
    return value


def _add(phrase: Phrase, last: Formula | None) -> Formula:
    phrase.accept(("together",), ("up",), ("on",), ("back",), ("another",), ("in",))
    phrase.accept((":",))
    percent = _percent_change(phrase)
    if percent is not None:
        phrase.accept(("tax",), ("sales", "tax"), ("vat",), ("tip",), ("interest",), ("more",), ("extra",), ("on", "top"))
        whole = phrase.expression() if phrase.accept(("to",), ("on",)) else _needed(last)
        return grown(whole, percent)
    parts = [phrase.term()]
    while phrase.accept((",", "and"), ("and",), (",",)):
        parts.append(phrase.term())
    phrase.accept(("more",), ("extra",))
    if phrase.accept(("to", "that", "sum"), ("on", "top")):
        return operation("+", _needed(last), *parts)
    if phrase.accept(("to",), ("with",), ("onto",)):
        return operation("+", phrase.expression(), *parts)
    phrase.accept(("together",), ("up",))
    return operation("+", *parts) if len(parts) > 1 else operation("+", _needed(last), *parts)


def _percent_change(phrase: Phrase) -> Formula | None:
    """`10%`, with or without an article, and not `10% of` something."""
    mark = phrase.at
    phrase.accept(("a",), ("an",), ("another",))
    phrase.accept(("further",))
    percent = phrase.percentage() if phrase.word(1) not in ("of",) else None
    if percent is None:
        phrase.at = mark
    return percent


def _subtract(phrase: Phrase, last: Formula | None) -> Formula:
    phrase.accept(("away",), ("off",), ("out",))
    mark = phrase.at
    percent = phrase.tokens[phrase.at] if not phrase.ended() else None
    if percent and percent.kind == "percent" and phrase.word(1) != "of":
        phrase.at += 1
        phrase.accept(("tax",), ("discount",), ("away",), ("off",), ("for", "tax"))
        whole = phrase.expression() if phrase.accept(("from",), ("off",), ("of",)) else _after_noun(phrase, last)
        return shrunk(whole, number(percent.text))
    phrase.at = mark
    parts = [phrase.term()]
    while phrase.accept(("and",)):
        parts.append(phrase.term())
    phrase.accept(("away",), ("off",))
    if phrase.accept(("from",), ("off",)):
        return operation("-", phrase.expression(), *parts)
    return operation("-", _needed(last), *parts)


def _after_noun(phrase: Phrase, last: Formula | None) -> Formula:
    """The thing named behind `20% off`, or the last result when nothing is named."""
    return _needed(last) if phrase.ended() else phrase.expression()


def _take(phrase: Phrase, last: Formula | None) -> Formula | None:
    mark = phrase.at
    if phrase.word() == "away":
        return _subtract(phrase, last)
    for reading in (_took_off, _took_root):
        phrase.at = mark
        try:
            value = reading(phrase, last)
        except Unreadable:
            continue
        if value is not None and phrase.ended():
            return value
    phrase.at = mark
    phrase.accept(("the", "number"), ("a", "number"))
    return phrase.expression()


def _took_off(phrase: Phrase, last: Formula | None) -> Formula | None:
    percent = phrase.percentage()
    if percent is None and phrase.tokens[phrase.at].kind == "percent" and phrase.word(1) in ("off", "from"):
        percent = number(phrase.word())
        phrase.at += 1
    if percent is not None:
        if phrase.accept(("off", "of"), ("off",), ("away", "from"), ("from",), ("away",)):
            return shrunk(_after_noun(phrase, last), percent)
        return None
    part = phrase.term()
    if phrase.accept(("away", "from"), ("from",), ("off", "of"), ("off",), ("out", "of")):
        return operation("-", _after_noun(phrase, last), part)
    return operation("-", _needed(last), part) if phrase.accept(("away",)) else None


def _took_root(phrase: Phrase, last: Formula | None) -> Formula | None:
    phrase.skip("the", "its")
    roots = {("square", "root"): "sqrt", ("root",): "sqrt", ("absolute", "value"): "abs"}
    for words, symbol in roots.items():
        if phrase.accept(words) and phrase.ended():
            return operation(symbol, _needed(last))
    return None


def _multiply(phrase: Phrase, last: Formula | None) -> Formula:
    if phrase.accept(("by",), ("with",)):
        return operation("*", _needed(last), phrase.term())
    parts = [_factor(phrase)]
    while phrase.accept(("by",), ("and",), ("with",), ("times",), (",", "and"), (",",)):
        parts.append(_factor(phrase))
    phrase.accept(("together",))
    return operation("*", *parts) if len(parts) > 1 else operation("*", _needed(last), *parts)


def _factor(phrase: Phrase) -> Formula:
    return phrase.power()


def _divide(phrase: Phrase, last: Formula | None) -> Formula:
    ways = (("by",), ("evenly", "by"), ("among",), ("between",), ("evenly", "among"), ("evenly", "between"), ("equally", "among"), ("equally", "between"), ("into",), ("in",))
    if phrase.accept(*ways):
        whole = _needed(last)
    else:
        whole = phrase.power()
        if not phrase.accept(*ways):
            raise Unreadable
    if phrase.accept(("half",), ("two", "halves")):
        return operation("/", whole, number(2))
    parts = phrase.power()
    phrase.accept(("people",), ("persons",), ("ways",), ("equal", "parts"), ("parts",), ("friends",), ("of", "us"))
    return operation("/", whole, parts)


def _scale(symbol: str, by: int) -> Callable[[Phrase, Formula | None], Formula]:
    def scaled(phrase: Phrase, last: Formula | None) -> Formula:
        whole = _needed(last) if phrase.ended() else phrase.expression()
        return operation(symbol, whole, number(by))

    return scaled


def _raise(phrase: Phrase, last: Formula | None) -> Formula:
    if phrase.word() == "to":
        whole = _needed(last)
    else:
        whole = phrase.primary()
    if phrase.accept(("to", "the", "power", "of"), ("to", "the", "power"), ("to", "the"), ("to",)):
        exponent = _ordinal(phrase) or phrase.primary()
        phrase.accept(("power",))
        return operation("**", whole, exponent)
    return _changed(phrase, whole, grow=True)


def _ordinal(phrase: Phrase) -> Formula | None:
    ordinals = {"second": 2, "third": 3, "fourth": 4, "fifth": 5, "sixth": 6, "seventh": 7, "eighth": 8, "ninth": 9, "tenth": 10}
    digits = phrase.word().rstrip("stndrh")
    if phrase.word() in ordinals:
        phrase.at += 1
        return number(ordinals[phrase.word(-1)])
    if digits.isdigit() and digits != phrase.word():
        phrase.at += 1
        return number(digits)
    return None


def _change(grow: bool) -> Callable[[Phrase, Formula | None], Formula]:
    def change(phrase: Phrase, last: Formula | None) -> Formula:
        if phrase.word() == "by":
            return _changed(phrase, _needed(last), grow=grow)
        return _changed(phrase, phrase.primary(), grow=grow)

    return change


def _changed(phrase: Phrase, whole: Formula, *, grow: bool) -> Formula:
    if not phrase.accept(("by", "another"), ("by",)):
        raise Unreadable
    percent = phrase.percentage()
    if percent is not None:
        return grown(whole, percent) if grow else shrunk(whole, percent)
    return operation("+" if grow else "-", whole, phrase.expression())


def _apply(phrase: Phrase, last: Formula | None) -> Formula:
    phrase.skip("a", "an", "the")
    percent = phrase.percentage()
    if percent is None:
        raise Unreadable
    phrase.accept(("sales",))
    loss = phrase.word() in ("discount", "reduction", "deduction", "rebate", "cut")
    if not loss and phrase.word() not in ("tax", "vat", "tip", "increase", "markup", "surcharge", "interest", "raise", "fee"):
        raise Unreadable
    phrase.at += 1
    whole = phrase.expression() if phrase.accept(("to",), ("on",)) else _needed(last)
    return shrunk(whole, percent) if loss else grown(whole, percent)


def _round(phrase: Phrase, last: Formula | None) -> Formula:
    phrase.accept(("off",), ("up",), ("down",))
    value = _needed(last) if phrase.ended() or phrase.word() == "to" else phrase.expression()
    if phrase.accept(("to", "the", "nearest")):
        steps = {"ten": 10, "10": 10, "hundred": 100, "100": 100, "thousand": 1000, "1000": 1000, "5": 5}
        nearest = steps.get(phrase.word(), 1)
        phrase.at += 1
        phrase.skip("number", "integer", "dollar")
        return operation("round", value) if nearest == 1 else operation(
            "*", operation("round", operation("/", value, number(nearest))), number(nearest)
        )
    if phrase.accept(("to",)):
        places = phrase.primary()
        phrase.skip("decimal", "decimals", "places", "place", "digits", "digit", "after", "the", "point")
        return operation("round", value, places)
    return operation("round", value)


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
    if not phrase.accept(("is", "what"), ("are", "what"), ("as", "a"), ("is", "how", "many"), ("make", "what")):
        return None
    if not phrase.accept(("percent", "of"), ("percentage", "of")):
        return None
    return _share(part, phrase.expression())


def _share(part: Formula, whole: Formula) -> Formula:
    return operation("*", operation("/", part, whole), number(100))


def _change_question(phrase: Phrase, last: Formula | None) -> Formula | None:
    """`the percent increase from 50 to 65`."""
    phrase.skip("the", "a")
    if not phrase.accept(("percent",), ("percentage",)) or phrase.word() not in ("change", "increase", "decrease", "growth", "drop", "reduction", "rise"):
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
    if not phrase.accept(*[("how", "much", word) for word in ("more", "bigger", "larger", "greater", "higher", "less", "smaller", "lower")]):
        return None
    phrase.skip("is", "are")
    left = phrase.expression()
    if not phrase.accept(("than",)):
        return None
    right = phrase.expression()
    return operation("-", right, left) if fewer else operation("-", left, right)


def _pick(phrase: Phrase, last: Formula | None) -> Formula | None:
    """`which is larger, 3 * 4 or 2 ** 4`."""
    if not phrase.accept(("which", "is"), ("which", "number", "is"), ("which", "one", "is"), ("what", "is"), ("is",)):
        return None
    phrase.skip("the")
    large = phrase.word() in ("larger", "bigger", "greater", "more", "higher", "largest", "biggest", "greatest")
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
    if not phrase.accept(("how", "much", "is", "left", "of"), ("how", "much", "is", "left", "from"), ("left", "of"), ("left", "from"), ("remains", "of"), ("how", "much", "remains", "of"), ("how", "much", "of")):
        return None
    whole = phrase.primary()
    phrase.accept(("is", "left"), ("remains",), ("do", "i", "have", "left"), ("will", "be", "left"))
    if not phrase.accept(("after", "paying"), ("after",), ("without",), ("when", "i", "subtract"), ("if", "i", "pay"), ("once", "i", "pay")):
        return None
    return operation("-", whole, phrase.expression())


def _value(phrase: Phrase, last: Formula | None) -> Formula | None:
    phrase.accept(("start", "with"), ("start", "from"), ("begin", "with"), ("start", "at"), ("starting", "from"), ("starting", "with"), ("beginning", "with"))
    phrase.accept(("number",), ("a", "number"), ("the", "number"))
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


_ORDERS: dict[str, Callable[[Phrase, Formula | None], Formula | None]] = {
    "add": _add,
    "adding": _add,
    "sum": _add,
    "subtract": _subtract,
    "subtracting": _subtract,
    "deduct": _subtract,
    "remove": _subtract,
    "take": _take,
    "knock": _take,
    "multiply": _multiply,
    "multiplying": _multiply,
    "divide": _divide,
    "dividing": _divide,
    "split": _divide,
    "share": _divide,
    "double": _scale("*", 2),
    "doubling": _scale("*", 2),
    "triple": _scale("*", 3),
    "tripling": _scale("*", 3),
    "quadruple": _scale("*", 4),
    "halve": _scale("/", 2),
    "halving": _scale("/", 2),
    "square": _scale("**", 2),
    "squaring": _scale("**", 2),
    "cube": _scale("**", 3),
    "raise": _raise,
    "increase": _change(grow=True),
    "grow": _change(grow=True),
    "decrease": _change(grow=False),
    "reduce": _change(grow=False),
    "lower": _change(grow=False),
    "cut": _change(grow=False),
    "discount": _change(grow=False),
    "apply": _apply,
    "round": _round,
}
_READINGS = (
    _ratio_question,
    _change_question,
    _fits,
    _more_than,
    _pick,
    _left_after,
    _order,
    _operator_first,
    _value,
)
