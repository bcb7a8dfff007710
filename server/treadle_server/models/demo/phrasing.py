"""Other ways to say what the readings know: each becomes the plain form of the same request."""

import re
from collections.abc import Callable

_WRITTEN: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...] = (
    (
        r"\bsort (?P<rows>.+?) by (?P<field>[\w ]+?),? (?:and|then) (?:list|show|print|give)(?: "
        r"me)? (?:them|all of them)\b",
        r"list \g<rows> sorted by \g<field>",
    ),
    (
        r"\bsort (?P<rows>.+?) by (?P<field>[\w ]+?),? (?:and|then) (?:list|show|print|give)(?: "
        r"me)? (?P<what>(?:the|their) \w+)",
        r"list \g<what> sorted by \g<field>",
    ),
    (
        r"\b(what|who|where|when|how|that|there|it)s\b(?= (?:the|my|our|your|his|her|a|an|it|in|"
        r"on|is|left|\d)\b)",
        r"\1's",
    ),
    (r"\b(whats|whos|wheres|whens|hows)\b", lambda match: f"{match[1][:-1]}'s"),
    (r"\b(dont|doesnt|didnt|isnt|arent|cant|wont)\b", lambda match: f"{match[1][:-1]}'t"),
)
_TAXES = r"(?:sales tax|tax|vat|tip|service(?: charge)?|surcharge|interest|markup|gratuity|fee)"
_SPEND = (
    r"(?:(?:i|we) (?:spend|pay|use|used|spent|paid|give away|gave away|take out|took out|withdraw|"
    r"buy something for|"
    r"hand over|lose|lost|donate)|spending|paying|using|taking out|withdrawing|deducting|subtracting)"
)
_AMOUNT = r"(?P<amount>[$€£]?\d[\d,.]*\d|[$€£]?\d)(?: (?:dollars|euros|pounds|francs|of (?:it|them|that)))?"
_FORMS: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...] = (
    (
        rf"^(?:and |so )?how (?:much|many) of (?P<whole>.+?) (?:is|are|will be|would be|do i have|"
        rf"would i have|remains?|"
        rf"will i have|have i)(?: left| remaining| still there)?(?: over)?,? (?:if|after|when|"
        rf"once) (?:{_SPEND} )?{_AMOUNT}[ ?.]*$",
        r"what is \g<whole> minus \g<amount>",
    ),
    (
        rf"^(?:and |so )?(?:how much |what )(?:remains|is left|will be left|would be left|would "
        rf"remain|will remain|stays)"
        rf"(?: over)? (?:of|from) (?P<whole>.+?),? (?:if|after|when|once) (?:{_SPEND} )?{_AMOUNT}[ ?.]*$",
        r"what is \g<whole> minus \g<amount>",
    ),
    (
        rf"^if {_SPEND} {_AMOUNT}(?: (?:of|from) (?:it|that))?,? (?:how much|what)(?: of)? (?:is "
        rf"left of |remains of )?"
        r"(?P<whole>(?:my|our|the) [a-z ]+?)(?: is| will be| would be)?(?: left| remains| remaining)?[ ?.]*$",
        r"what is \g<whole> minus \g<amount>",
    ),
    (
        r"^(?:and |so )?(?:how (?:much|many)|what) (?:of |is left of |remains of )(?P<whole>(?:my|"
        r"our|the) [a-z ]+?)"
        r"(?: is left| remains| will be left| do i have left)? after (?:paying |subtracting "
        r")?(?P<part>(?:my|our|the) [a-z ]+?)[ ?.]*$",
        r"what is \g<whole> minus \g<part>",
    ),
    (
        r"^(?:and )?what (?:would|will) (?P<whole>.+?) be,? (?:if|when|once) (?:(?:it|i|you|we|they) )?"
        r"(?:(?:were|was|is|are|got|gets) )?(?P<done>doubled|tripled|halved|squared|cubed)(?: it)?[ ?.]*$",
        r"what is \g<whole> \g<done>",
    ),
    (
        r"^(?:and )?(?:what|how much) (?:is|would|will|does|are) (?:it|that|this|the (?:result|total|price))"
        r"(?: be| come to| cost| make)?,? (?:with|including|plus|after(?: adding)?|if (?:you|i|"
        r"we) add|once (?:you|i|we) add) "
        rf"(?:an? |another )?(?P<rate>\d[\d.]* ?(?:%|percent)) (?P<tax>{_TAXES})(?: (?:is "
        rf")?(?:added|included|on top))?(?: to it)?[ ?.]*$",
        r"add \g<rate> to it",
    ),
    (
        r"^(?:and )?(?:what|how much) (?:is|would|will|does|are) (?:it|that|this|the (?:result|total|price))"
        r"(?: be| come to| cost| make)?,? (?:with|after|at|minus|less) (?:an? )?(?P<rate>\d[\d.]* "
        r"?(?:%|percent))"
        r" (?:off|discount|reduction|rebate|(?:is )?(?:taken off|deducted))(?: it)?[ ?.]*$",
        r"reduce it by \g<rate>",
    ),
    (
        r"\b(?P<verb>from|to|by|of|with|add|cube|take|multiply|increase|decrease|divide|double|triple|square|reduce|"
        r"halve|round|raise|lower) what (?:you|we|i) (?:get|got|have)\b(?! (?:if|when)\b)(?! by [a-z])",
        r"\g<verb> the result",
    ),
    (
        r"^(?:and )?where (?:does|do|did) (?P<who>.+?) study[ ?.]*$",
        r"what was noted as where \g<who> studies",
    ),
    (
        r"^(?:and )?where (?:does|do|did) (?P<who>.+?) (?P<verb>live|work|study|stay|train|park|keep)[ ?.]*$",
        r"what was noted as where \g<who> \g<verb>s",
    ),
    (r"\b(if|when) i (square|double|triple|halve|cube|divide)d\b", r"\1 i \2"),
    (
        r"\b(if|when) i (add|subtract|multipl)(?:ied|ed)\b",
        lambda match: f"{match[1]} i {match[2].replace('ipl', 'iply')}",
    ),
    (
        r"^(?:and )?how much (?:money )?(?:does|do|did) (?P<who>(?!i\b|we\b)[\w' ]+?) owe me[ ?.]*$",
        r"what was noted as what \g<who> owes",
    ),
    (
        r"^(?:and )?(?:how much|what) (?:money )?(?:do|did) i owe (?:to )?(?P<who>[\w' ]+?)[ ?.]*$",
        r"what was noted as what I owe \g<who>",
    ),
)
_COMPILED = tuple((re.compile(pattern, re.IGNORECASE), plain) for pattern, plain in _FORMS)


def with_apostrophes(text: str) -> str:
    """`whats` and `dont` as they are written with care."""
    for pattern, written in _WRITTEN:
        text = re.sub(pattern, written, text, flags=re.IGNORECASE)
    return text


def plainly(clause: str) -> str:
    """The clause in its plain form; most clauses are in it already."""
    for pattern, plain in _COMPILED:
        clause = pattern.sub(plain, clause)
    return clause
