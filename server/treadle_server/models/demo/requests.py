"""One clause, read in every way there is until one explains it."""

import re
from collections.abc import Callable

from treadle_server.models.demo import declining, notes
from treadle_server.models.demo.arithmetic.calculations import stripped
from treadle_server.models.demo.arithmetic.formulas import is_plain
from treadle_server.models.demo.arithmetic.words import tokens_of
from treadle_server.models.demo.clocks.dates import read_whether
from treadle_server.models.demo.clocks.places import places_in
from treadle_server.models.demo.clocks.times import read_times
from treadle_server.models.demo.documents.extremes import read_owner
from treadle_server.models.demo.documents.inquiries import read_inquiry
from treadle_server.models.demo.errands import read_errand
from treadle_server.models.demo.keeping import (
    correct,
    earn,
    guess_note,
    keep,
    list_notes,
    recall,
    recall_plainly,
    state_fact,
)
from treadle_server.models.demo.phrasing import plainly
from treadle_server.models.demo.stories.telling import has_quantity, tell_story
from treadle_server.models.demo.tasks import Agenda, Calculate, Say
from treadle_server.models.demo.values import (
    calculate,
    calculate_first,
    close_chain,
    compare,
    compare_both,
    convert,
    convert_last,
)

_INTRODUCES = re.compile(
    r"^(?:(?:here|this|these|those|given|consider|look|using|use|from|for|in|with|suppose|"
    r"i|we|my|our|the|following|below|and|please|of|on|at|analy[sz]e|take|json|data)\b|⟦|"
    r"$)",
    re.IGNORECASE,
)
ASKS = re.compile(
    r"\?|\b(?:what|how|which|who|whose|sum|total|average|mean|list|give|tell|find|count|"
    r"show|calculate|compute|max\w*|min\w*|highest|lowest|number of|add|return|get|extract|"
    r"fetch|read|write|summari[sz]e|translate)\b",
    re.IGNORECASE,
)


def read_clause(clause: str, agenda: Agenda, *, stories: bool) -> bool:
    """Adds the tasks of one clause; false when no reading explains it."""
    clause = plainly(clause.strip(" ,;:"))
    clause = re.sub(
        r"^(?:please )?(?:use|using|with) (?:the|your|a) [a-z_ ]{2,30}?(?: tool)?(?: to|,| and) ",
        "",
        clause,
        flags=re.IGNORECASE,
    )
    readings: tuple[Callable[[str, Agenda], bool], ...] = (
        _small_talk,
        close_chain,
        correct,
        keep,
        earn,
        compare_both,
        list_notes,
        read_whether,
        read_owner,
        convert_last,
        convert,
        calculate_first,
        _inquire_first,
        read_times,
        _place_only,
        _inquire,
        _introduce,
        recall_plainly,
        calculate,
        compare,
        state_fact,
        recall,
    )
    if stories:
        readings = (*readings, read_errand, _decline, _single_story, guess_note)
    return any(agenda.attempt(lambda reading=reading: reading(clause, agenda)) for reading in readings)  # type: ignore[misc]


def _small_talk(clause: str, agenda: Agenda) -> bool:
    kind = declining.small_talk(clause)
    if kind:
        agenda.add(Say(kind, ""))
    return bool(kind)


def _place_only(clause: str, agenda: Agenda) -> bool:
    """`and in Paris?` after a question about clocks."""
    places = places_in(clause)
    if (
        not places
        or not agenda.place
        or not re.match(
            r"^(?:and|what about|how about|also|or)?\s*(?:what about\s+|how about\s+)?(?:in\s+|for\s+)?\S",
            clause,
            re.IGNORECASE,
        )
    ):
        return False
    rest = re.sub(r"\b(?:and|what|how|about|also|in|for|now|the)\b|[?.,!]", " ", clause, flags=re.IGNORECASE)
    for place in places:
        rest = rest.replace(place.name, " ")
    return not rest.strip() and read_times(
        f"what time is it in {' and '.join(place.name for place in places)}", agenda
    )


def _inquire_first(clause: str, agenda: Agenda) -> bool:
    """With a document at hand, `day` and `time` mean its fields."""
    return agenda.fresh and not places_in(clause) and _inquire(clause, agenda)


def _inquire(clause: str, agenda: Agenda) -> bool:
    tokens = tokens_of(clause)
    if _introduces(clause) or (
        notes.recalled_phrase(clause) and not any(token.kind == "document" for token in tokens)
    ):
        return False
    if re.search(
        r"\b(?:poem|story|song|joke|translate|summari[sz]e|e-?mail|haiku|essay)\b", clause, re.IGNORECASE
    ):
        return False
    found = read_inquiry(tokens, agenda)
    if found is None:
        return False
    for value in found:
        if not is_plain(value):
            agenda.result(Calculate(value))
    return True


def _introduces(clause: str) -> bool:
    return (
        "⟦" in clause
        and not ASKS.search(re.sub(r"⟦\d+⟧", "", clause))
        and bool(_INTRODUCES.match(clause.strip()))
    )


def _introduce(clause: str, agenda: Agenda) -> bool:
    """`Here is some data:` asks nothing yet; neither do a polite word and a bare document."""
    if _introduces(clause):
        return True
    words = [token.text for token in stripped(tokens_of(clause))]
    return not words or bool(_OPENS.match(clause) and _DATA_LAST.search(clause) and not ASKS.search(clause))


_OPENS = re.compile(r"^(?:here|i have|consider|look at|given|using|use|with|for|from|in)\b", re.IGNORECASE)
_DATA_LAST = re.compile(r"\b(?:json|data|document|below|following|list)\W*$", re.IGNORECASE)


def _decline(clause: str, agenda: Agenda) -> bool:
    reason = declining.lack_of(clause)
    if not reason:
        return False
    agenda.place = next((place.name for place in places_in(clause)), agenda.place)
    agenda.add(Say("lack", reason))
    return True


def _single_story(clause: str, agenda: Agenda) -> bool:
    """A word problem within one sentence."""
    return has_quantity(clause) and not re.search(r"⟦|\d:\d\d", clause) and tell_story([clause], agenda)
