"""Yes-or-no questions about the date somewhere: `is it Monday in Rome?`."""

import re

from treadle_server.models.demo.clocks.places import Place, places_in
from treadle_server.models.demo.tasks import Agenda, Clock, Say

_DAYS = "monday|tuesday|wednesday|thursday|friday|saturday|sunday"
_MONTHS = "january|february|march|april|may|june|july|august|september|october|november|december"
_WHETHER = re.compile(
    rf"^(?:and |so )?(?:is|isn't) (?:it|today|the day|the date|the month)?\s*(?:a |already |still |"
    rf"now |currently |really "
    rf"|today |the )*(?P<asked>{_DAYS}|{_MONTHS}|weekend|weekday)\b(?P<rest>[^\d]*)$",
    re.IGNORECASE,
)
_REST = re.compile(
    r"\b(?:in|at|over|there|now|already|today|right|currently|the|and|yet|of|month|day|by|local|time)\b|[\s?.!,]",
    re.IGNORECASE,
)


def unknown_place(what: str) -> Say:
    return Say(
        "told", f"I do not know which place you mean, so I cannot tell {what}. Name a city or a time zone."
    )


def read_whether(clause: str, agenda: Agenda) -> bool:
    """Adds a look at the clock for a yes-or-no question about a weekday or a month."""
    match = _WHETHER.match(
        re.sub(r"^in (.+?),? (is it .+?)\??$", r"\2 in \1", clause.strip(), flags=re.IGNORECASE)
    )
    if match is None:
        return False
    rest, asked = match["rest"], match["asked"].lower()
    places: tuple[Place, ...] = places_in(rest) or places_in(agenda.place)
    for place in places_in(rest):
        rest = rest.replace(place.name, " ")
    if _REST.sub("", rest):
        return False
    if not places:
        agenda.add(unknown_place("the day there"))
        return True
    agenda.place = places[0].name
    for place in places:
        agenda.add(Clock(place.zone, place.name, asked=asked))
    return True
