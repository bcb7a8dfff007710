"""Requests that no rule and no tool covers, and what each would need."""

import re

_LACKS = (
    (
        r"\b(?:weather|forecast|rain(?:ing)?|snow(?:ing)?|sunny|umbrella|humidity|how (?:hot|"
        r"cold|warm) is it|temperature (?:outside|in|today))\b",
        "I have no tool that knows the weather",
    ),
    (
        r"\b(?:poems?|haikus?|sonnets?|limericks?|lyrics?|songs?|story|stories|essays?|novel|"
        r"jokes?|rhymes?|fairy ?tale|ballad|riddles?|screenplay)\b",
        "I cannot write texts such as poems, stories or jokes: I work by rules and have no "
        "language generator",
    ),
    (
        r"\b(?:book|reserve|buy|order|purchase|get)\b.*\b(?:flights?|hotels?|tickets?|tables?|"
        r"rooms?|taxis?|cabs?|trains?|rides?|restaurants?|pizzas?|seats?|appointments?|"
        r"groceries|car)\b",
        "I have no tool that books, orders or buys anything",
    ),
    (
        r"\b(?:send|write|draft|compose|reply to|forward)\b.*\b(?:e-?mails?|mails?|messages?|"
        r"letters?|sms|texts?|tweets?|posts?)\b|\b(?:e-?mail|call|phone|text|message|"
        r"dial)\s+(?:my|the|him|her|them|[A-Z]\w+)\b",
        "I have no tool that writes or sends messages",
    ),
    (
        r"\btranslat\w+\b|\bhow do you say\b|\bin (?:french|german|spanish|italian|japanese|"
        r"chinese)\b",
        "I have no tool that translates",
    ),
    (
        r"\b(?:news|headlines?|stock (?:price|market)|share price|stocks?|exchange rate|"
        r"bitcoin|crypto\w*|score of the (?:game|match)|who won|election)\b",
        "I have no tool that looks up news, prices or other current facts",
    ),
    (
        r"\b(?:search|browse|google|look up online|on the (?:web|internet)|website|web page|"
        r"url|https?:)\b",
        "I have no tool that searches or reads the web",
    ),
    (
        r"\b(?:draw|paint|picture|photo|image|sketch|logo|diagram|video|render)\b",
        "I have no tool that makes or reads pictures",
    ),
    (r"\b(?:play|music|playlist|sing)\b", "I have no tool that plays or makes music"),
    (
        r"\b(?:(?:write|generate|debug|fix|refactor|review)\b.*\b(?:code|program|script|"
        r"function|class|python|javascript|java|sql|html|app)|code review)\b",
        "I cannot write or check programs: I have no tool for it",
    ),
    (
        r"\b(?:delete|open|read|edit|move|copy|rename|upload|download)\b.*\b(?:files?|folders?|"
        r"documents?|pdf|spreadsheet|disk|attachment)\b",
        "I have no tool that works with files",
    ),
    (
        r"\b(?:calendar|meeting|schedule|remind me (?:to|at|in|tomorrow)|reminder|set an? "
        r"(?:alarm|timer)|alarm|timer)\b",
        "I have no tool for calendars, reminders or alarms",
    ),
    (
        r"\b(?:turn (?:on|off)|switch (?:on|off)|lights?|thermostat|unlock|lock the)\b",
        "I have no tool that controls devices",
    ),
    (
        r"\bforget\b|\b(?:delete|erase|remove|clear)\b.*\b(?:notes?|memory|memories|what i "
        r"told)\b",
        "I have no tool that deletes notes",
    ),
    (
        r"\b(?:summari[sz]e|paraphrase|proofread|rewrite|rephrase|explain|describe|recommend|"
        r"suggest|advi[cs]e|opinion|what do you think|should i|plan (?:a|my|the)|recipe|"
        r"meaning of)\b",
        ("I cannot write, explain or judge in free words: I work by rules and have no tool for it"),
    ),
    (
        r"\b(?:convert|exchange)\b.*\b(?:usd|eur|gbp|dollars?|euros?|pounds?|yen)\b",
        "I have no tool that knows exchange rates",
    ),
    (
        r"\b(?:directions?|route|map|traffic|how (?:do i|to) get to|distance (?:from|between)|"
        r"how far is)\b",
        "I have no tool that knows maps or distances",
    ),
    (
        r"\b(?:capital of|president|population of|prime minister|king|queen|who (?:wrote|"
        r"invented|discovered|is|was|painted|built|founded)|when (?:was|did|is)|history|where "
        r"is|what causes|why (?:is|do|does|are|did)|how (?:does|do|did)|define|definition|"
        r"tallest|largest country)\b",
        "I have no source of general knowledge",
    ),
)
_COMPILED = tuple((re.compile(pattern, re.IGNORECASE), reason) for pattern, reason in _LACKS)
_GREETING = re.compile(
    r"^\s*(?:hi|hello|hey|good (?:morning|afternoon|evening)|greetings|howdy)(?:\s+there|"
    r"\s+treadle|\s+everyone)?\s*[,.!]*\s*$",
    re.IGNORECASE,
)
_THANKS = re.compile(
    r"^\s*(?:thanks?(?: you)?(?: (?:a lot|so much|very much))?|great|perfect|cheers|nice|"
    r"ok(?:ay)?|cool|well done|bye|goodbye|good job|got it)\s*[.!]*\s*$",
    re.IGNORECASE,
)
_ABOUT_ME = re.compile(
    r"\bwhat (?:can|could) you do\b|\bwho are you\b|\bwhat are you\b|\bhow can you help\b|"
    r"\bwhat (?:tools|abilities|skills) do you have\b|\byour (?:tools|abilities)\b|"
    r"\bhelp\s*[?!.]*\s*$|\bwhat are you able to\b",
    re.IGNORECASE,
)


def lack_of(text: str) -> str:
    """Why this cannot be done; empty when the kind of request is not a known one."""
    return next((reason for pattern, reason in _COMPILED if pattern.search(text)), "")


def small_talk(text: str) -> str:
    """`greeting`, `thanks`, `abilities` or nothing."""
    if _GREETING.match(text):
        return "greeting"
    if _THANKS.match(text):
        return "thanks"
    return "abilities" if _ABOUT_ME.search(text) else ""
