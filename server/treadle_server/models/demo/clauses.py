"""A text as sentences, and a sentence as clauses."""

import re

_VERBS = (
    r"what|what's|how|tell|give|calculate|compute|work out|remember|memori[sz]e|recall|"
    r"store|save|note|record|add|subtract|multiply|divide|take|deduct|"
    r"double|triple|quadruple|halve|square|cube|round|increase|decrease|reduce|raise|split|"
    r"share|find|list|count|which|who|when|where|write|show|report|"
    r"convert|check|let me|please|also|then|is|are|do you|don't forget|keep in mind|remind|"
    r"look up|fetch|retrieve|sum|apply|my [a-z' ]+? is|the [a-z' ]+? is|[a-z](?= ?=)|"
    r"book|send|draw|translate|play|query|get|raise|lower"
)
_OPERATORS = (
    r"plus|minus|times|multiplied by|divided by|multiply|squared|cubed|doubled|tripled|"
    r"halved|increased by|decreased by|less|raised to"
)
_THEN = (
    r"(?:and\s+|but\s+)?(?:then|after that|afterwards|after which|finally|lastly|next|"
    r"thereafter)\b,?\s*(?!what)"
)
_CUT = re.compile(
    rf"\s*[,;:]?\s+{_THEN}"
    rf"|\s*[,;]?\s+(?:and|but)\s+(?=(?:{_VERBS})\b)"
    rf"|\s*[,;]\s*(?:and\s+)?(?=(?:{_VERBS}|{_OPERATORS})\b)",
    re.IGNORECASE,
)
_END = re.compile(r"(?<=[.?!])[\"'”’]?\s+(?=\S)|\n+|;\s+|(?<=[?!])(?=[A-Z])")
_ABBREVIATION = re.compile(
    r"(?:\b(?:[ap]\.m|mr|mrs|ms|dr|st|vs|e\.g|i\.e|no|approx|etc|d\.c))\.$", re.IGNORECASE
)


def sentences_of(text: str) -> list[str]:
    """Sentences with their marks. A dot within a number or an abbreviation ends nothing."""
    pieces: list[str] = []
    start = 0
    for match in _END.finditer(text):
        piece = text[start : match.start()].strip()
        if _ABBREVIATION.search(piece) and not re.match(
            r"(?:What|How|When|Who|Which|Then|Remember)\b", text[match.end() :]
        ):
            continue
        if piece:
            pieces.append(piece)
        start = match.end()
    last = text[start:].strip()
    return [re.sub(r"^(?:\d+[.)]|[-*•])\s+(?=[A-Za-z])", "", piece) for piece in (*pieces, last) if piece]


def clauses_of(sentence: str) -> list[tuple[int, int]]:
    """Where the clauses of a sentence begin and end."""
    bounds: list[tuple[int, int]] = []
    start = 0
    for match in _CUT.finditer(sentence):
        if match.start() > start and not _quoted(sentence, match.start()):
            bounds.append((start, match.start()))
            start = match.end()
    bounds.append((start, len(sentence)))
    return [(begin, end) for begin, end in bounds if sentence[begin:end].strip(" .,?!;:")]


_REQUEST = re.compile(rf"^\s*(?:and\s+|then\s+|finally\s+|also\s+|please\s+)*(?:{_VERBS})\b", re.IGNORECASE)


def begins_request(clause: str) -> bool:
    """Whether a clause opens like an order or a question of its own."""
    return bool(_REQUEST.match(clause))


def _quoted(sentence: str, at: int) -> bool:
    return sentence[:at].count('"') % 2 == 1
