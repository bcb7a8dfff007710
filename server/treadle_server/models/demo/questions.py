"""From what a user says to the tasks it asks for."""

import re
from collections.abc import Callable, Sequence

from treadle_server.models.demo import declining, notes
from treadle_server.models.demo.clauses import clauses_of, sentences_of
from treadle_server.models.demo.commands import read_calculation, read_comparison, stripped
from treadle_server.models.demo.comparisons import read_comparison_story
from treadle_server.models.demo.documents import without_documents
from treadle_server.models.demo.errands import read_errand
from treadle_server.models.demo.figures import read_figure_story
from treadle_server.models.demo.formulas import Formula, Number, Result, is_plain
from treadle_server.models.demo.inquiries import read_inquiry, value_of
from treadle_server.models.demo.places import places_in
from treadle_server.models.demo.quantities import converted
from treadle_server.models.demo.stories import Unexplained, read_story
from treadle_server.models.demo.tasks import Agenda, Calculate, Gap, ListNotes, Recall, Say, Store
from treadle_server.models.demo.times import gap_value, read_times
from treadle_server.models.demo.words import Token, plain, stem, tokens_of

_IT = re.compile(
    r"^(?:it|that|this|them|those|its value|(?:the|that|this|your|my)? ?(?:previous |last |final |first |above |new |whole |resulting )?(?:result|answer|total|sum|number|amount|value|outcome|product|difference|average|quotient|figure|count|remainder|price)(?: so far| above)?)$"
)
_ARITHMETIC = re.compile(
    r"\d ?%|\b(?:plus|minus|times|multipl\w+|divid\w+|half|third of|quarter of|twice|double|triple|squared?|cubed?|root|add|subtract|percent\w*|increase\w*|decrease\w*|reduce\w*|halve|round|deduct|take|difference)\b|[-+*/]"
)
_INTRODUCES = re.compile(
    r"^(?:(?:here|this|these|those|given|consider|look|using|use|from|for|in|with|suppose|i|we|my|our|the|following|below|and|please|of|on|at|analy[sz]e|take|json|data)\b|⟦|$)", re.IGNORECASE
)
_ASKS = re.compile(
    r"\?|\b(?:what|how|which|who|whose|sum|total|average|mean|list|give|tell|find|count|show|calculate|compute|max\w*|min\w*|highest|lowest|number of|add|return|get|extract|fetch|read|write|summari[sz]e|translate)\b",
    re.IGNORECASE,
)
_IN_UNIT = re.compile(r"^(?:how many|what is (?:that|it|this) in|what's (?:that|it) in|convert (?:that|it|this|the result) (?:to|into)|(?:and )?in|express (?:that|it) in) (seconds|minutes|hours|days|weeks|months|years|cents)(?: is (?:that|it|this)| are (?:that|there|they)| does that make)?$")


def read_question(text: str, agenda: Agenda) -> None:
    """Adds the tasks of everything the text asks for; what it cannot read becomes a Say."""
    documents = len(agenda.documents)
    text = without_documents(text, agenda.documents)
    agenda.fresh = len(agenda.documents) > documents
    sentences = sentences_of(text)
    index = 0
    while index < len(sentences):
        if _told(sentences, index) and (used := _read_story_at(sentences, index, agenda)):
            index += used
            continue
        _read_sentence(sentences[index], agenda)
        index += 1


def _told(sentences: Sequence[str], index: int) -> bool:
    """Whether a story may begin here: nothing but a story explains this sentence."""
    sentence = sentences[index]
    if notes.read_keeping(sentence) or "⟦" in sentence or not _has_quantity(sentence) or re.search(r"\d:\d\d|\d ?[ap]\.?m\b", sentence):
        return False
    probe = Agenda()
    probe.last = Number("1")
    return not _direct(sentence, probe) or bool(notes.read_fact(sentence) and index + 1 < len(sentences))


def _has_quantity(sentence: str) -> bool:
    return any(token.numeric for token in tokens_of(sentence)) or bool(re.search(r"\b(?:half|twice|third|quarter)\b", sentence))


def _direct(sentence: str, agenda: Agenda) -> bool:
    """Whether every clause is a calculation, a question about clocks or a note."""
    return all(
        _read_clause(sentence[start:end], agenda, stories=False) for start, end in clauses_of(sentence)
    ) or _read_clause(sentence, agenda, stories=False)


def _read_story_at(sentences: Sequence[str], index: int, agenda: Agenda) -> int:
    """Reads the longest run of sentences up to a question as one story; 0 when it is none."""
    end = index
    while end < len(sentences):
        end += 1
        if not re.search(r"\?\s*$|\b(?:find|calculate|work out|determine|compute|how (?:many|much|long|far|old))\b", sentences[end - 1], re.IGNORECASE):
            continue
        if _tell_story(sentences[index:end], agenda):
            return end - index
        break
    return 0


def _tell_story(sentences: Sequence[str], agenda: Agenda) -> bool:
    tokens = [tokens_of(sentence) for sentence in sentences]
    before = len(agenda.tasks)
    unclear = ""
    for reading in (read_figure_story, read_comparison_story, read_story):
        try:
            if agenda.attempt(_reading(reading, tokens, agenda)):
                _answer_last(agenda, before)
                return True
        except Unexplained as problem:
            unclear = str(problem)
    if unclear and len(sentences) > 1:
        agenda.add(Say("unclear", unclear))
        return True
    return False


def _reading(reading: Callable[[Sequence[Sequence[Token]], Agenda], bool], tokens: list[tuple[Token, ...]], agenda: Agenda) -> Callable[[], bool]:
    return lambda: reading(tokens, agenda)


def _answer_last(agenda: Agenda, before: int) -> None:
    """Makes the last step of a story its answer."""
    last = agenda.last
    if isinstance(last, Result) and last.task >= before:
        task = agenda.tasks[last.task]
        if isinstance(task, Calculate):
            agenda.tasks[last.task] = Calculate(task.formula, task.unit)
    elif isinstance(last, Number):
        agenda.add(Say("told", f"The answer is {last.text}."))


def _read_sentence(sentence: str, agenda: Agenda) -> None:
    bounds = clauses_of(sentence)
    index, unread = 0, []
    while index < len(bounds):
        used = _read_from(sentence, bounds, index, agenda)
        if used == 0:
            unread.append(sentence[bounds[index][0] : bounds[index][1]])
            used = 1
        index += used
    if unread:
        _say_unread(sentence, unread, agenda)


def _read_from(sentence: str, bounds: Sequence[tuple[int, int]], index: int, agenda: Agenda) -> int:
    """Reads one clause from here, or several as one; how many it took."""
    for end in range(index + 1, len(bounds) + 1):
        clause = sentence[bounds[index][0] : bounds[end - 1][1]]
        if notes.read_keeping(clause) and end < len(bounds) and _belongs(sentence, bounds, end):
            continue
        if index and notes.read_keeping(sentence[slice(*bounds[index - 1])]) and notes.read_fact(clause):
            clause = f"remember that {clause}"
        if agenda.attempt(lambda clause=clause: _read_clause(clause, agenda, stories=True)):  # type: ignore[misc]
            return end - index
    return 0


def _belongs(sentence: str, bounds: Sequence[tuple[int, int]], index: int) -> bool:
    """Whether the next clause is no request of its own, so that it is part of the note."""
    probe = Agenda()
    probe.last = Number("1")
    probe.documents = ["[1]"]
    clause = sentence[bounds[index][0] : bounds[index][1]]
    return not (_read_clause(clause, probe, stories=False) or notes.read_fact(clause) or declining.lack_of(clause) or _ASKS.search(clause))


def _read_clause(clause: str, agenda: Agenda, *, stories: bool) -> bool:
    """Adds the tasks of one clause; false when no reading explains it."""
    clause = clause.strip(" ,;:")
    readings: tuple[Callable[[str, Agenda], bool], ...] = (
        _small_talk,
        _close,
        _keep,
        _list_notes,
        _in_unit,
        _calculate_first,
        read_times,
        _place_only,
        _inquire,
        _introduce,
        _calculate,
        _compare,
        _state_fact,
        _recall,
    )
    if stories:
        readings = (*readings, read_errand, _decline, _single_story, _guess_note)
    return any(agenda.attempt(lambda reading=reading: reading(clause, agenda)) for reading in readings)  # type: ignore[misc]


def _small_talk(clause: str, agenda: Agenda) -> bool:
    kind = declining.small_talk(clause)
    if kind:
        agenda.add(Say(kind, ""))
    return bool(kind)


_CLOSES = re.compile(
    r"^(?:so |and )?(?:what(?:'s| is| do| will| would|'ll)?|how much(?: do| is| will| would)?)\s*(?:you|i|we|it|that|be|is)?\s*(?:the )?(?:(?:final |end )?(?:result|answer|total|number|value)|get|have|left|be|end up with|have left)\s*(?:in the end|now|then|at the end|left)?\s*\??$|^(?:what do you get|what's left|what remains|what is left|what number do you get|what do i get|what do i end up with)\??$",
    re.IGNORECASE,
)


def _close(clause: str, agenda: Agenda) -> bool:
    """`What do you get?` behind a chain of orders asks for what they end with."""
    last = agenda.last
    begun = isinstance(last, Result) and bool(agenda.starts) and last.task >= agenda.starts[-1]
    return begun and bool(_CLOSES.match(clause))


def _keep(clause: str, agenda: Agenda) -> bool:
    keeping = notes.read_keeping(clause)
    if keeping is None:
        return False
    key, value, refers = keeping.key, keeping.value, keeping.refers
    if not value or (refers and not key and value.lower() in ("that", "this", "it") and agenda.last is None):
        if not agenda.facts:
            return False
        key, value = list(agenda.facts.items())[-1]
    found = _kept_value(value, agenda, refers=refers)
    name = notes.key_of(key or (value if found is None or value.lower() not in ("that", "this", "it") else "result"))
    if not name:
        return False
    _store(name, value, found, agenda)
    return True


def _kept_value(value: str, agenda: Agenda, *, refers: bool) -> Formula | None:
    """The value of a phrase that has to be worked out, None when the words themselves are to be kept."""
    tokens = tokens_of(value)
    if len(tokens) == 1 and tokens[0].kind == "number":
        return None
    if refers or _ARITHMETIC.search(plain(tokens)) or "⟦" in value or _IT.match(plain(tokens)):
        found = read_calculation(tokens, agenda.last, _resolver(agenda))
        if found is None:
            found = value_of(tokens, agenda) if refers or "⟦" in value else None
        return found
    return None


def _store(name: str, text: str, found: Formula | None, agenda: Agenda) -> None:
    same = tuple(index for index in agenda.stores if getattr(agenda.tasks[index], "key", "") == name)
    if isinstance(found, Number):
        text, found = found.text, None
    if found is not None:
        result = found if isinstance(found, Result) else agenda.result(Calculate(found))
        assert isinstance(result, Result)
        agenda.stores.append(agenda.add(Store(name, "", result.task, same)))
        agenda.last = result
        return
    agenda.stores.append(agenda.add(Store(name, text, after=same)))
    agenda.notes[name] = text
    agenda.recalls.pop(name, None)
    agenda.last = None
    agenda.subject = name


def _list_notes(clause: str, agenda: Agenda) -> bool:
    if not notes.asks_for_all(clause):
        return False
    agenda.add(ListNotes(tuple(agenda.stores)))
    return True


def _in_unit(clause: str, agenda: Agenda) -> bool:
    """`how many minutes is that`."""
    match = _IN_UNIT.match(clause.lower().strip(" ?.!"))
    if not match or agenda.last is None or not agenda.last_unit:
        return False
    unit = stem(match[1])
    value = converted(agenda.last, agenda.last_unit, unit)
    if value is None:
        return False
    agenda.result(Calculate(value, unit), unit)
    return True


def _place_only(clause: str, agenda: Agenda) -> bool:
    """`and in Paris?` after a question about clocks."""
    places = places_in(clause)
    if not places or not agenda.place or not re.match(r"^(?:and|what about|how about|also|or)?\s*(?:what about\s+|how about\s+)?(?:in\s+|for\s+)?\S", clause, re.IGNORECASE):
        return False
    rest = re.sub(r"\b(?:and|what|how|about|also|in|for|now|the)\b|[?.,!]", " ", clause, flags=re.IGNORECASE)
    for place in places:
        rest = rest.replace(place.name, " ")
    return not rest.strip() and read_times(f"what time is it in {' and '.join(place.name for place in places)}", agenda)


def _calculate_first(clause: str, agenda: Agenda) -> bool:
    """What speaks of operations is no mere question about a clock or a document, if it reads as arithmetic."""
    return bool(_ARITHMETIC.search(plain(stripped(tokens_of(clause))))) and _calculate(clause, agenda)


def _inquire(clause: str, agenda: Agenda) -> bool:
    tokens = tokens_of(clause)
    if _introduces(clause) or (notes.recalled_phrase(clause) and not any(token.kind == "document" for token in tokens)):
        return False
    if re.search(r"\b(?:poem|story|song|joke|translate|summari[sz]e|e-?mail|haiku|essay)\b", clause, re.IGNORECASE):
        return False
    found = read_inquiry(tokens, agenda)
    if found is None:
        return False
    for value in found:
        if not is_plain(value):
            agenda.result(Calculate(value))
    return True


def _introduces(clause: str) -> bool:
    return "⟦" in clause and not _ASKS.search(re.sub(r"⟦\d+⟧", "", clause)) and bool(_INTRODUCES.match(clause.strip()))


def _introduce(clause: str, agenda: Agenda) -> bool:
    """`Here is some data:` asks nothing yet; neither do a polite word and a bare document."""
    if _introduces(clause):
        return True
    words = [token.text for token in stripped(tokens_of(clause))]
    return not words or bool(re.fullmatch(r"(?:here (?:is|are)|i have|consider|look at|given|using|use|with|for|from|in) (?:this|the|some|my|a|these|following|json|data|document|below|above|list|of|\W|[a-z]+)*?(?:json|data|document|below|following|list)\W*", clause.lower()))


def _resolver(agenda: Agenda) -> Callable[[Sequence[Token]], Formula | None]:
    def resolve(tokens: Sequence[Token]) -> Formula | None:
        text = plain(tokens)
        if _IT.match(text) and (agenda.last is not None or agenda.subject):
            return agenda.last if agenda.last is not None else agenda.recall(agenda.subject, agenda.subject, answers=False)
        fact = _known(text, agenda)
        if fact is not None:
            return fact
        gap = gap_value(" ".join(token.typed for token in tokens), agenda)
        if gap is not None:
            return gap
        if _names_note(text) or _noted(text, agenda):
            phrase = re.sub(r"^(?:the )?(?:note|value|number) (?:called|named|under|of|for) ", "", text)
            return agenda.recall(notes.key_of(phrase), phrase, answers=False)
        return value_of(tokens, agenda) if agenda.documents and len(tokens) > 1 else None

    return resolve


def _names_note(text: str) -> bool:
    """`my locker number`: a short name and nothing else."""
    return bool(re.match(r"^(?:my|our)(?: (?!(?:is|are|was|be|by|from|to|and|of|after|before|if|when|has|have|lives?|in|at|with|or|on)\b)[a-z][\w'-]*){1,4}$", text))


def _known(text: str, agenda: Agenda) -> Formula | None:
    """A number the user stated in this conversation without having it stored."""
    value = agenda.facts.get(notes.key_of(text), "") if notes.key_of(text) else ""
    tokens = tokens_of(value)
    numbers = [token.text for token in tokens if token.kind == "number"]
    return Number(numbers[0]) if len(numbers) == 1 else None


def _noted(text: str, agenda: Agenda) -> bool:
    if len(text.split()) > 9 or re.search(r"\d", text):
        return False
    if re.search(r"\b(?:note|i (?:told|saved|stored|asked|gave)|you (?:remember|stored|saved)|remembered|stored|saved)\b", text):
        return True
    key = notes.key_of(text)
    stored = {getattr(agenda.tasks[index], "key", "") for index in agenda.stores}
    return bool(key) and key in stored


def _calculate(clause: str, agenda: Agenda) -> bool:
    tokens = tokens_of(clause)
    formula = read_calculation(tokens, agenda.last, _resolver(agenda))
    if formula is None:
        return False
    if is_plain(formula):
        return _plain_value(tokens, formula, agenda)
    unit = "$" if any(token.money for token in tokens) else agenda.last_unit if agenda.last_unit in ("$",) else ""
    agenda.result(Calculate(formula, unit), unit)
    return True


def _plain_value(tokens: Sequence[Token], formula: Formula, agenda: Agenda) -> bool:
    """A clause that only names a value: `take 12`, `what is my badge?`."""
    text = plain(tokens)
    if isinstance(formula, Number):
        starts = re.search(r"^(?:[a-z ]+ )?(?:take|start|begin|think of|pick|starting|with|the number|let|use)\b|^\d", text)
        agenda.last, agenda.last_unit = formula, ""
        return bool(starts)
    agenda.last = formula
    task = agenda.tasks[formula.task] if isinstance(formula, Result) else None
    if isinstance(task, Gap) and isinstance(formula, Result):
        agenda.tasks[formula.task] = Gap(task.first, task.second)
    if isinstance(task, Recall) and isinstance(formula, Result):
        agenda.tasks[formula.task] = Recall(task.phrase, task.known, task.after)
        return True
    return bool(_IT.match(plain(stripped(tokens))) or task is not None)


def _compare(clause: str, agenda: Agenda) -> bool:
    found = read_comparison(tokens_of(clause), _resolver(agenda))
    if found is None or is_plain(found[0]):
        return False
    agenda.result(Calculate(found[0], asked=found[1]))
    return True


def _state_fact(clause: str, agenda: Agenda) -> bool:
    fact = notes.read_fact(clause)
    if fact is None:
        return False
    name, value = fact
    computed = read_calculation(tokens_of(value), agenda.last, _resolver(agenda))
    if isinstance(computed, Number):
        value = computed.text
    agenda.facts[notes.key_of(name)] = value
    agenda.add(Say("fact", f"{_yours(name)} is {value}"))
    return True


def _recall(clause: str, agenda: Agenda) -> bool:
    phrase = notes.recalled_phrase(clause)
    key = notes.key_of(phrase)
    if not phrase or not key:
        return False
    if agenda.facts.get(key):
        agenda.add(Say("told", f"You said that {_yours(phrase)} is {agenda.facts[key]}."))
        return True
    agenda.last = agenda.recall(key, phrase, answers=True)
    return True


def _guess_note(clause: str, agenda: Agenda) -> bool:
    phrase = notes.guessed_phrase(clause)
    if not phrase:
        return False
    agenda.last = agenda.recall(notes.key_of(phrase), phrase, answers=True, guess=True)
    return True


def _yours(phrase: str) -> str:
    return re.sub(r"\bour\b", "your", re.sub(r"\bmy\b", "your", phrase, flags=re.IGNORECASE), flags=re.IGNORECASE)


def _decline(clause: str, agenda: Agenda) -> bool:
    reason = declining.lack_of(clause)
    if not reason:
        return False
    agenda.add(Say("lack", reason))
    return True


def _single_story(clause: str, agenda: Agenda) -> bool:
    """A word problem within one sentence."""
    return _has_quantity(clause) and not re.search(r"⟦|\d:\d\d", clause) and _tell_story([clause], agenda)


def _say_unread(sentence: str, unread: list[str], agenda: Agenda) -> None:
    part = " ".join(" and ".join(unread).split())
    if len(part) > 160:
        part = part[:157] + "..."
    reason = declining.lack_of(sentence)
    if reason:
        agenda.add(Say("lack", reason))
    elif _ASKS.search(part) or re.search(r"\d", part) or re.match(r"^\s*(?:please\s+)?[a-z]+\b", part, re.IGNORECASE):
        part = re.sub(r"⟦\d+⟧", "(JSON)", part)
        agenda.add(Say("unread", part))


