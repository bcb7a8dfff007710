"""Clauses about notes and facts: storing, listing, recalling, stating."""

import re

from treadle_server.models.demo import notes
from treadle_server.models.demo.arithmetic.calculations import read_calculation
from treadle_server.models.demo.arithmetic.formulas import Formula, Number, Result, operation
from treadle_server.models.demo.arithmetic.words import plain, tokens_of
from treadle_server.models.demo.clocks.places import places_in
from treadle_server.models.demo.documents.inquiries import value_of
from treadle_server.models.demo.references import IT, resolver
from treadle_server.models.demo.tasks import Agenda, Calculate, ListNotes, Say, Store
from treadle_server.models.demo.values import (
    ARITHMETIC,
)


def keep(clause: str, agenda: Agenda) -> bool:
    keeping = notes.read_keeping(re.sub(r"\s*[:,]?\s*⟦\d+⟧\s*[.!]?\s*$", "", clause))
    if keeping is None:
        return False
    key, value, refers = keeping.key, keeping.value, keeping.refers
    if not value or (refers and not key and value.lower() in ("that", "this", "it") and agenda.last is None):
        if not agenda.facts:
            return False
        key, value = list(agenda.facts.items())[-1]
    found = _kept_value(value, agenda, refers=refers)
    name = notes.key_of(
        key or (value if found is None or value.lower() not in ("that", "this", "it") else "result")
    )
    if not name:
        return False
    _store(name, value, found, agenda)
    return True


def _kept_value(value: str, agenda: Agenda, *, refers: bool) -> Formula | None:
    """The value of a phrase that has to be worked out, None when the words themselves are to be kept."""
    tokens = tokens_of(value)
    if len(tokens) == 1 and tokens[0].kind == "number":
        return None
    if refers or ARITHMETIC.search(plain(tokens)) or "⟦" in value or IT.match(plain(tokens)):
        found = read_calculation(tokens, agenda.last, resolver(agenda))
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
    _place_of(text, agenda)


_CORRECTS = re.compile(
    r"^(?P<lead>(?:actually|correction|sorry|no|wait|oops|update|scratch that|i was wrong|my "
    r"mistake|well)\b[,:.!]?\s*)*"
    r"(?P<said>.+)$",
    re.IGNORECASE,
)
_IT_IS = re.compile(
    r"^(?:it|that|this)(?:'s| is| was| should be| has to be) (?:now |actually |really )?(?P<value>[^?]+)$|"
    r"^(?:make (?:it|that)|i meant|change (?:it|that) to|it (?:has )?changed to) (?P<other>[^?]+)$",
    re.IGNORECASE,
)
_NOW_IS = re.compile(
    r"^(?P<key>(?:my|our|the) [\w' ]+?|[A-Z][a-z]+'s [\w' ]+?) (?:(?:is|are) now|has (?:now "
    r")?changed to|changed to|"
    r"is actually|has become|went (?:up|down) to|is) (?P<value>[^?]+)$",
    re.IGNORECASE,
)


def correct(clause: str, agenda: Agenda) -> bool:
    """`Actually, it is now 750.` replaces the note spoken of last, or the one that it names."""
    match = _CORRECTS.match(clause.strip().rstrip(".!"))
    if match is None:
        return False
    said, led = match["said"], bool(match["lead"])
    it = _IT_IS.match(said)
    if it and agenda.subject and (led or re.search(r"\bnow\b|\bactually\b", said)):
        _store(agenda.subject, re.sub(r"^now ", "", (it["value"] or it["other"]).strip()), None, agenda)
        return True
    named = _NOW_IS.match(said)
    key = notes.key_of(named["key"]) if named else ""
    stated = named and (led or re.search(r"\b(?:now|changed|actually|become)\b|went (?:up|down) to", said))
    if named is None or not stated or not (key in agenda.notes or (led and not it)):
        return False
    _store(key, re.sub(r"^now ", "", named["value"].strip()), None, agenda)
    return True


_EARNS = re.compile(
    r"^(?:and )?(?:how much|what) (?:money )?(?:do|will|would|did|can|could) i (?:earn|make|get|"
    r"be paid|get paid)"
    r"(?: if i work(?:ed)?| for(?: working)?| in| working| by working| when i work)?(?: a shift of)? "
    r"(?P<count>\w+) hours?(?: of work)?(?: at (?:that|this|my) (?:hourly )?(?:rate|wage|pay))?[ ?.]*$"
    r"|^(?:if i work|for) (?P<other>\w+) hours?(?: of work)?,? (?:how much|what) (?:do|will|would) i "
    r"(?:earn|make|get|be paid|get paid)[ ?.]*$",
    re.IGNORECASE,
)


def earn(clause: str, agenda: Agenda) -> bool:
    """Hours of work times the hourly wage that a note tells; without such a note there is no answer."""
    match = _EARNS.match(clause.strip())
    if match is None:
        return False
    hours = read_calculation(tokens_of(match["count"] or match["other"]), None, resolver(agenda))
    if not isinstance(hours, Number):
        return False
    fact = next((key for key in agenda.facts if key in ("hourly_wage", "hourly_rate", "hourly_pay")), "")
    wage = agenda.recall(fact or "hourly_wage", (fact or "hourly wage").replace("_", " "), answers=False)
    agenda.result(Calculate(operation("*", hours, wage)))
    return True


def list_notes(clause: str, agenda: Agenda) -> bool:
    if not notes.asks_for_all(clause) or (agenda.fresh and re.search(r"\bkeys\b", clause)):
        return False
    agenda.add(ListNotes(tuple(agenda.stores)))
    return True


def state_fact(clause: str, agenda: Agenda) -> bool:
    fact = notes.read_fact(clause)
    if fact is None:
        return False
    name, value = fact
    computed = read_calculation(tokens_of(value), agenda.last, resolver(agenda))
    if isinstance(computed, Number):
        value = computed.text
    agenda.facts[notes.key_of(name)] = value
    agenda.add(Say("fact", f"{_yours(name)} is {value}"))
    return True


def recall_plainly(clause: str, agenda: Agenda) -> bool:
    return not ARITHMETIC.search(plain(tokens_of(clause))) and recall(clause, agenda)


def recall(clause: str, agenda: Agenda) -> bool:
    phrase = notes.recalled_phrase(clause)
    key = notes.key_of(phrase)
    if not phrase or not key or notes.read_fact(clause):
        return False
    both = re.split(r",? and (?=(?:my|our|the) )", phrase)
    if len(both) == 2:
        return all(recall(f"what is {part}", agenda) for part in both)
    if agenda.facts.get(key):
        agenda.add(Say("told", f"You said that {_yours(phrase)} is {agenda.facts[key]}."))
        return True
    agenda.last = agenda.recall(key, phrase, answers=True)
    _place_of(agenda.notes.get(key, ""), agenda)
    return True


def _place_of(text: str, agenda: Agenda) -> None:
    """Makes the place that a note names the one that `there` means."""
    agenda.place = next((place.name for place in places_in(text)), agenda.place)


def guess_note(clause: str, agenda: Agenda) -> bool:
    phrase = notes.guessed_phrase(clause)
    if not phrase or not agenda.alone:
        return False
    agenda.last = agenda.recall(notes.key_of(phrase), phrase, answers=True, guess=True)
    return True


def _yours(phrase: str) -> str:
    return re.sub(
        r"\bour\b", "your", re.sub(r"\bmy\b", "your", phrase, flags=re.IGNORECASE), flags=re.IGNORECASE
    )
