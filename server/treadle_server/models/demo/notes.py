"""Requests to store and to fetch notes, and facts that are stated in passing."""

import re
from dataclasses import dataclass

from treadle_server.models.demo.arithmetic.words import word_set

_VERB = (
    r"(?:remember|memori[sz]e|note(?: down)?|make a note(?: of)?|take a note|keep (?:a "
    r"note of|in mind|track of)|don'?t forget|do not forget|never forget|store|save|record|"
    r"write down|jot down|put down|log|keep)"
)
_POLITE = (
    r"(?:(?:please|can you|could you|would you|i want you to|i'd like you to|i need you to|"
    r"also|and|then|now|first|ok|okay|so|hi|hello|hey|finally|next|afterwards|"
    r"kindly)[,:]?\s+)*"
)
_STORE = re.compile(
    (
        rf"^{_POLITE}{_VERB}\b(?:\s+(?:for me|for later|this|the following|the fact|"
        r"down)\b(?=\s*[:,]|\s+that\b))?\s*[:,]?\s*(?:that\s+(?=\w+\s))?(?P<rest>.*)$"
    ),
    re.IGNORECASE | re.DOTALL,
)
_INTO = re.compile(
    rf"^{_POLITE}(?:put|write|enter) (?P<value>.+?) (?:in|into|to) (?:your |the |my )?(?:memory|notes?) "
    r"(?:as|under) (?P<key>[\w '-]+?)[.!]?$",
    re.IGNORECASE,
)
_UNDER = re.compile(
    (
        r"^(?P<value>.+?)\s+(?:as|under|by the name(?: of)?|with)\s+(?:the\s+|a\s+|"
        r"my\s+)?(?:(?:key|name|label|title|note)\s+)?(?:called\s+|"
        r"named\s+)?(?P<key>[\"'“`]?[\w][\w '’-]*?[\"'”`]?)\s*$"
    ),
    re.IGNORECASE,
)
_IS = re.compile(
    (
        r"^(?P<key>.+?)\s*(?:\b(?:is|are|was|were|equals?|will be)\b|(?<=\w)['’]s\b(?=\s+(?:\d|"
        r"called|named|the|a|on|at|in)\b)|=|:(?!\d))\s*(?P<value>.+)$"
    ),
    re.IGNORECASE | re.DOTALL,
)
_DOES = re.compile(
    (
        r"^(?P<key>.+?\s(?:costs?|weighs?|lives? in|works? (?:at|in|for)|stud(?:y|ies) (?:at|in)|"
        r"stays? (?:at|in)|parks? (?:at|in)|trains? (?:at|in)|starts? (?:at|on)|"
        r"likes?|prefers?|owes? me|takes|has))\s+(?P<value>.+)$"
    ),
    re.IGNORECASE,
)
_OWN = (
    (re.compile(r"^I owe (?P<who>.+?) (?P<value>(?:[$€£]\s?)?\d.*)$", re.IGNORECASE), r"owe {who}"),
    (re.compile(r"^(?P<who>.+?) owes? me (?P<value>.+)$", re.IGNORECASE), r"{who} owes"),
    (
        re.compile(
            r"^(?:I|we) (?:earn|make|get(?: paid)?|am paid|'m paid) (?P<value>.*\d.*?(?:per|an|a|"
            r"every|each|/) ?hour)$",
            re.IGNORECASE,
        ),
        "hourly wage",
    ),
    (
        re.compile(r"^(?P<who>.+?) (?:is|are|was) (?:called|named) (?P<value>.+)$", re.IGNORECASE),
        r"{who} name",
    ),
)
_FACT = re.compile(
    (
        r"^(?:(?:let|suppose|assume|say|imagine|given|if|when|where|"
        r"and)\s+(?:that\s+)?)?(?P<key>(?:my|our)\s+[\w '’-]+?|(?:let\s+)?[a-z])\s*(?:\b(?:is|"
        r"are|be|equals?)\b|=)\s*(?P<value>[^?]+)$"
    ),
    re.IGNORECASE,
)
_LIST = re.compile(
    r"\b(?:what|which|list|show|tell)\b.*\b(?:notes|keys|memories)\b|\bwhat (?:do|can|did) "
    r"you (?:remember|know about me|recall)(?: about me| so far| from before)?\s*\??$"
    r"|\bwhat (?:things |else )?(?:have|did) (?:i|you|we) (?:told you|tell you|ask(?:ed)? "
    r"you to remember|stored?|saved?|remembered)(?: to remember| so far)?\s*\??$|"
    r"\beverything you (?:remember|know|stored|have stored)\b"
    r"|\bwhat have you (?:stored|saved|remembered|noted)\b|\bwhat (?:is|'s) in your "
    r"(?:memory|notes)\b|\blist (?:everything|all) (?:you|i)\b",
    re.IGNORECASE,
)
_ASKED = (
    (
        r"what\s+(?:did|have|had)\s+i\s+(?:tell|told|say|said|give|gave|ask|asked|mention|"
        r"mentioned|store|stored|save|saved|note|noted)(?:\s+you)?(?:\s+to\s+(?:remember|note|"
        r"store|save))?\s+(?:about|for|as|of|on|regarding|under)\s+(?P<{0}>.+)"
    ),
    r"what\s+did\s+i\s+say\s+(?P<{0}>.+?)\s+(?:is|was|are|were)",
    (
        r"(?:what|which|who|where|when|how much|how many)\s+(?P<{0}>.+?)\s+did\s+i\s+(?:tell|"
        r"ask|give|store|save|mention|say|note|want)\b.*"
    ),
    (
        r"(?:what|who|where|when|which)(?:\s+(?:is|was|were|are)|'s|"
        r"’s)\s+(?P<{0}>.+?)\s+(?:that\s+|which\s+)?(?:i|you|we)\s+(?:told|asked|gave|stored|"
        r"saved|mentioned|noted|remembered|memori[sz]ed|said|wanted|have stored|were told)\b.*"
    ),
    (
        r"(?:do|can|did)\s+you\s+(?:still\s+)?(?:remember|recall|know|"
        r"have)\s+(?:what\s+)?(?P<{0}>(?:my|our|the|what|where|who|when)\b.+?)(?:\s+(?:is|was|"
        r"are|were))?"
    ),
    (
        r"(?:recall|fetch|retrieve|look\s+up|read\s+back|read\s+out|remind\s+me(?:\s+(?:of|"
        r"about|what))?|tell\s+me\s+again|bring\s+up)\s+(?P<{0}>.+?)(?:\s+(?:is|was|are|"
        r"were))?(?:\s+from\s+(?:memory|your notes|my notes|the notes))?"
    ),
    r"(?:what|who|where|when|which)(?:\s+(?:is|was|were|are)|'s|’s)\s+(?P<{0}>(?:my|our)\s+.+?)(?:\s+again)?",
    (
        r"(?:what|who|where|when)\s+(?:do|did)\s+(?:you\s+remember|you\s+know|"
        r"i\s+tell\s+you)\s+(?:about|of)\s+(?P<{0}>.+)"
    ),
    (
        r"(?:tell|give|show|read|get)\s+me\s+(?:what\s+)?(?P<{0}>(?:my|our)\s+.+?|"
        r"the\s+(?:note|value|text)\b.+?|.+?\s+i\s+(?:told|asked|gave|saved|"
        r"stored).*)(?:\s+(?:is|was))?"
    ),
    (
        r"(?:what|which)\s+(?:\w+\s+)?(?:is|was)\s+(?:stored|saved|noted|remembered|kept|"
        r"recorded)\s+(?:under|as|for|about|with)\s+(?P<{0}>.+)"
    ),
    r"what(?:\s+does|\s+do)\s+(?P<{0}>(?:my|the)\s+note\b.+?)\s+say",
    r"(?P<{0}>my\s+[\w '’-]+)\s*,?\s*(?:please|again)?",
)
_ASKED_OF = (
    (
        r"(?:what|which)\s+(?:\w+\s+)?did\s+i\s+(?:tell|say|mention|give)(?:\s+you)?\s+(?:was|"
        r"is|as|for)\s+(?P<{0}>(?:my|our|the)\s+.+)"
    ),
    *_ASKED,
)
_RECALLS = tuple(
    re.compile(
        (
            rf"^{_POLITE}(?:tell me,?\s+|"
            rf"now,?\s+)?{form.format('key')}\s*(?:,?\s*please)?\s*[?.!]*$"
        ),
        re.IGNORECASE,
    )
    for form in _ASKED_OF
)
_GUESS = re.compile(
    (
        rf"^{_POLITE}(?:tell me\s+)?(?:what|who|where|when)(?:\s+(?:is|was|are)|'s|"
        r"’s)\s+(?P<key>(?:the|[A-Z][\w]*(?:'s|’s))\s+[\w '’-]+?)\s*\??$"
    ),
    re.IGNORECASE,
)
_NOISE = word_set(
    """
    my our your the a an of for to in on that this it is was are note notes about called named under
    key value text saved stored told asked gave memory number's please again what who where when i
    you me and with from named what's remember remembered json data document result i've all
    """
)


@dataclass(frozen=True, slots=True)
class Keeping:
    """Something to store. An empty key asks for one made of the value's own words."""

    key: str
    value: str
    refers: bool = False
    """The value is a phrase to be worked out first: `the total of the amounts`."""


def key_of(phrase: str) -> str:
    """The key for a phrase: `my badge number` is badge_number wherever it is said."""
    words = re.findall(r"[\w]+", phrase.lower().replace("’s", "").replace("'s", ""))
    kept = [word for word in words if word not in _NOISE]
    return "_".join((kept or words)[:6])[:80]


def read_keeping(text: str) -> Keeping | None:
    """What a clause asks to store, None when it asks for something else."""
    into = _INTO.match(text.strip())
    if into:
        return Keeping(into["key"], into["value"], refers=True)
    match = _STORE.match(text.strip())
    if not match or text.rstrip().endswith("?"):
        return None
    rest = match["rest"].strip().rstrip(".!").strip().replace("’", "'")
    rest = re.sub(r"^(?:these|the following|two|three|some)[^:]{0,30}:\s*", "", rest, flags=re.IGNORECASE)
    rest = re.sub(r"^the (?:value|number|text|word) (?=[\"'\d])", "", rest, flags=re.IGNORECASE)
    rest = re.sub(
        r"^(?:that|this|it)\s*[:,]\s*|^that\s+(?=.+\b(?:is|are|was|were)\b)", "", rest, flags=re.IGNORECASE
    )
    rest = re.sub(
        (
            r"\s+(?:for me|for later|please|in (?:your )?(?:memory|notes)|to (?:memory|your notes|"
            r"notes|my notes))$"
        ),
        "",
        rest,
        flags=re.IGNORECASE,
    )
    if not rest:
        return Keeping("", "")
    if under := _UNDER.match(rest):
        if (
            re.match(r"^(?:my|our)\s", under["value"], re.IGNORECASE)
            and re.search(r"\bas\b", rest)
            and not re.search(r"\bunder\b|\bkey\b", rest)
        ):
            return Keeping(under["value"], under["key"])
        if not _IS.match(rest) or re.search(r"\b(?:under|as)\s+(?:the\s+)?(?:key|name)\b", rest):
            return Keeping(under["key"].strip("\"'“”` "), under["value"].strip('"“”'), refers=True)
    named = re.match(r"^(?P<key>[\w '-]+?)\s*(?::(?!\d)|=)\s*(?P<value>.+)$", rest, re.DOTALL) or _IS.match(
        rest
    )
    for form, key in _OWN:
        if own := form.match(rest):
            return Keeping(key.format(**{"who": "", **own.groupdict()}), own["value"].strip().strip('"“”'))
    named = named or _DOES.match(rest)
    if named and key_of(named["key"]):
        return Keeping(named["key"].strip("\"'“”` "), named["value"].strip().strip('"“”'))
    return Keeping("", rest, refers=True)


def read_fact(text: str) -> tuple[str, str] | None:
    """`my rent is 900`: what is said, and its value."""
    match = _FACT.match(text.strip().rstrip(".!"))
    if not match or re.match(r"^(?:what|how|who|where|when|which)\b", match["value"], re.IGNORECASE):
        return None
    return re.sub(r"^let\s+", "", match["key"], flags=re.IGNORECASE), match["value"].strip()


def asks_for_all(text: str) -> bool:
    return bool(_LIST.search(text))


def recalled_phrase(text: str) -> str:
    """The thing a clause wants back from the notes; empty when it wants none."""
    for pattern in _RECALLS:
        if match := pattern.match(text.strip()):
            return _cleaned(match["key"])
    return ""


def guessed_phrase(text: str) -> str:
    """What a question may mean a note by: `what is the wifi password?`."""
    match = _GUESS.match(text.strip())
    return _cleaned(match["key"]) if match and len(match["key"].split()) <= 5 else ""


def _cleaned(phrase: str) -> str:
    phrase = re.sub(
        (
            r"^(?:the\s+)?(?:note|value|text|thing|number|memo)\s+(?:called|named|under|about|on|"
            r"for|with the key|stored under|saved as|of)\s+(?:the\s+key\s+)?"
        ),
        "",
        phrase.strip(),
        flags=re.IGNORECASE,
    )
    phrase = re.sub(r"^(?:what|where|who|when)\s+(?=my|our|the)", "", phrase, flags=re.IGNORECASE)
    return phrase.strip(" \"'“”`?.!,")


_LOOSE = word_set(
    """
    number code name id no pin called phone telephone mobile home current new email street main personal
    full exact monthly hourly yearly annual weekly daily total secret favourite favorite preferred next own
    """
)
_GENERIC = word_set("number code name id no called")
_KIN = word_set(
    """
    mother father mom mum dad brother sister son daughter wife husband aunt uncle cousin grandmother
    grandfather grandma grandpa niece nephew friend boss colleague neighbour neighbor partner girlfriend
    boyfriend child kid baby dog cat horse parrot rabbit hamster roommate flatmate teacher team
    """
)
_PERSONAL = word_set(
    """
    birthday name address age phone email colour color food job height weight size anniversary nickname
    hobby salary car house husband wife owe live work birthdate wage
    """
)
_SAME = {"rate": "wage", "pay": "wage", "salary": "wage", "favorite": "favourite", "color": "colour"}


def best_key(wanted: str, keys: list[str]) -> str:
    """The one stored key that means the wanted thing; empty when none does, or several might."""
    fitting = [key for key in keys if _means(_words(wanted), _words(key))]
    exact = [key for key in fitting if set(_words(key)) == set(_words(wanted))]
    chosen = exact or fitting
    return chosen[0] if len(chosen) == 1 else ""


def _means(wanted: list[str], key: list[str]) -> bool:
    """Whether a key is for the wanted thing: one head noun, and no word for another thing or person."""
    asked, kept = _core(wanted), _core(key)
    if not asked or not kept:
        return set(wanted) == set(key) and bool(wanted)
    if set(asked) == set(kept):
        return "name" not in wanted or "name" in key or not set(key) & _GENERIC
    if len(kept) - len(asked) >= 3 and kept[: len(asked)] == asked:
        return not set(kept) & _KIN - set(asked)
    if set(asked) < set(kept):
        extra = set(kept) - set(asked)
        same_head = asked[-1] == kept[-1] or bool(set(wanted) & set(key) & _GENERIC)
        return same_head and not extra & _KIN and (not set(wanted) & _PERSONAL or extra <= _LOOSE)
    return set(kept) < set(asked) and asked[-1] == kept[-1] and set(asked) - set(kept) <= _LOOSE


def _core(words: list[str]) -> list[str]:
    return [word for word in words if word not in _GENERIC] or words


def _words(key: str) -> list[str]:
    found = [
        word.rstrip("s") for word in re.findall(r"[a-z0-9]+", key.lower()) if word not in _NOISE | {"at"}
    ]
    hourly = "hourly" in found or "hour" in found
    return [
        _SAME.get(word, word) if word not in ("rate", "pay", "salary") or hourly else word for word in found
    ]
