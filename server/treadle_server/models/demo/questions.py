"""From what a user says to the tasks it asks for."""

import re
from collections.abc import Sequence
from dataclasses import replace

from treadle_server.models.demo import declining, notes
from treadle_server.models.demo.arithmetic.formulas import Number
from treadle_server.models.demo.clauses import begins_request, clauses_of, sentences_of
from treadle_server.models.demo.documents.documents import without_documents
from treadle_server.models.demo.phrasing import with_apostrophes
from treadle_server.models.demo.requests import (
    ASKS,
    read_clause,
)
from treadle_server.models.demo.stories.telling import has_quantity, tell_story
from treadle_server.models.demo.tasks import Agenda, Say

_SENTENCE_MAX = 1_000
_SENTENCES_MAX = 60


def read_question(text: str, agenda: Agenda) -> None:
    """Adds the tasks of everything the text asks for; what it cannot read becomes a Say."""
    documents = len(agenda.documents)
    text = with_apostrophes(without_documents(text, agenda.documents))
    agenda.fresh = len(agenda.documents) > documents
    sentences = _bounded(sentences_of(text), agenda)
    index = 0
    while index < len(sentences):
        if _told(sentences, index) and (used := _read_story_at(sentences, index, agenda)):
            index += used
            continue
        _read_sentence(sentences[index], agenda)
        index += 1


def _bounded(sentences: list[str], agenda: Agenda) -> list[str]:
    """The sentences of a size that rules are for; of the rest it is said that they were not read."""
    kept = [sentence for sentence in sentences if len(sentence) <= _SENTENCE_MAX][:_SENTENCES_MAX]
    if len(kept) < len(sentences):
        agenda.add(Say("long", ""))
    return kept


def _told(sentences: Sequence[str], index: int) -> bool:
    """Whether a story may begin here: nothing but a story explains this sentence."""
    sentence = sentences[index]
    if (
        notes.read_keeping(sentence)
        or "⟦" in sentence
        or not has_quantity(sentence)
        or re.search(r"\d:\d\d|\d ?[ap]\.?m\b", sentence)
    ):
        return False
    probe = Agenda()
    probe.last = Number("1")
    return not _direct(sentence, probe) or bool(notes.read_fact(sentence) and index + 1 < len(sentences))


def _direct(sentence: str, agenda: Agenda) -> bool:
    """Whether every clause is a calculation, a question about clocks or a note."""
    return all(
        read_clause(sentence[start:end], agenda, stories=False) for start, end in clauses_of(sentence)
    ) or read_clause(sentence, agenda, stories=False)


def _read_story_at(sentences: Sequence[str], index: int, agenda: Agenda) -> int:
    """Reads the longest run of sentences up to a question as one story; 0 when it is none."""
    end = index
    while end < len(sentences):
        end += 1
        if not re.search(
            r"\?\s*$|\b(?:find|calculate|work out|determine|compute|how (?:many|much|long|far|old))\b",
            sentences[end - 1],
            re.IGNORECASE,
        ):
            continue
        probe = replace(Agenda(), last=Number("1"))
        if all(_direct(sentence, probe) for sentence in sentences[index:end]):
            return 0
        if tell_story(sentences[index:end], agenda):
            return end - index
        break
    return 0


def _read_sentence(sentence: str, agenda: Agenda) -> None:
    bounds = clauses_of(sentence)
    agenda.alone = len(bounds) == 1
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
        if agenda.attempt(lambda clause=clause: read_clause(clause, agenda, stories=True)):  # type: ignore[misc]
            return end - index
    return 0


def _belongs(sentence: str, bounds: Sequence[tuple[int, int]], index: int) -> bool:
    """Whether the next clause is no request of its own, so that it is part of the note."""
    probe = Agenda()
    probe.last = Number("1")
    probe.documents = ["[1]"]
    clause = sentence[bounds[index][0] : bounds[index][1]]
    if begins_request(clause) and not re.match(r"^\s*(?:and\s+)?(?:is|are)\b", clause):
        return False
    return not (
        read_clause(clause, probe, stories=False)
        or notes.read_fact(clause)
        or declining.lack_of(clause)
        or ASKS.search(clause)
    )


def _say_unread(sentence: str, unread: list[str], agenda: Agenda) -> None:
    part = " ".join(" and ".join(unread).split())
    if len(part) > 160:
        part = part[:157] + "..."
    reason = declining.lack_of(sentence)
    if reason:
        agenda.add(Say("lack", reason))
    elif (
        ASKS.search(part)
        or re.search(r"\d", part)
        or re.match(r"^\s*(?:please\s+)?[a-z]+\b", part, re.IGNORECASE)
    ):
        part = re.sub(r"⟦\d+⟧", "(JSON)", part)
        agenda.add(Say("unread", part))
