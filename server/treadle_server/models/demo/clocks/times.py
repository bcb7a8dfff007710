"""Questions about clocks: the time somewhere, differences, times elsewhere, later and until."""

import re
from dataclasses import dataclass

from treadle_server.models.demo.arithmetic import numerals
from treadle_server.models.demo.arithmetic.formulas import Formula, Number, operation
from treadle_server.models.demo.clocks.dates import unknown_place
from treadle_server.models.demo.clocks.places import Place, places_in
from treadle_server.models.demo.tasks import Agenda, Calculate, Clock, Elsewhere, Gap, Later, Say, Until

_CLOCK_TIME = re.compile(
    r"\b(?P<hour>\d{1,2})(?:[:.h](?P<minute>\d{2}))?\s*(?P<half>a\.?m\b\.?|p\.?m\b\.?)"
    r"|\b(?P<hour24>\d{1,2}):(?P<minute24>\d{2})\b(?:\s*(?:hours|hrs)\b)?"
    r"|\b(?P<oclock>\d{1,2})\s*o'?\s?clock(?:\s+in\s+the\s+(?P<part>morning|afternoon|evening))?"
    r"|\b(?P<word>noon|midday|midnight)\b",
    re.IGNORECASE,
)
_DURATION = re.compile(
    r"(?P<count>\d+(?:\.\d+)?)\s*(?:-\s*)?(?P<unit>hours?|hrs?|h|minutes?|mins?|days?|weeks?)\b",
    re.IGNORECASE,
)
_UNIT_MINUTES = {"h": 60, "m": 1, "d": 1440, "w": 10080}
_TOPIC = re.compile(
    r"\btimes?\b|\bclocks?\b|\b(?:hours?|minutes?)\b.*\b(?:ahead|behind|apart|between|"
    r"difference|earlier|later|until|till|from now|from)\b"
    r"|\b(?:ahead|behind)\b|\b(?:later|earlier)\b.*\bthan\b|\b(?:later|earlier) in\b|"
    r"\bapart\b.*\b(?:hours?|minutes?)\b|\b(?:what|which) month\b|\boffset\b|\bdate\b|\bwhat "
    r"day\b|\bwhich day\b|\bday of the week\b|\bday is it\b|"
    r"\bhow late\b|\bo'clock\b|\btoday\b"
    r"|\btime ?zones?\b|\bhow long until\b|\bnoon\b|\bmidnight\b|\bweekday\b",
    re.IGNORECASE,
)
_GAP = re.compile(
    r"\bdifferen\w*\b|\bsame time\b|\b(?:later|earlier) in\b|\bahead\b|\bbehind\b|"
    r"\bapart\b|\bgap\b|\bhow (?:many hours|much) (?:earlier|later|further)\b|\boffset\b"
    r"|\bhours? (?:separate|between|lie|from)\b|\bhow many hours\b.*\b(?:between|separate|"
    r"from)\b|\bhow far\b.*\bclocks?\b"
    r"|\b(?:earlier|later) (?:is|are)\b|\b(?:earlier|later) than\b",
    re.IGNORECASE,
)
_UNTIL = re.compile(
    r"\b(?:until|till|before it is|to go before|left before|remain before|'til)\b", re.IGNORECASE
)
_AGO = re.compile(r"\bago\b|\bwas it\b|\bearlier\b", re.IGNORECASE)
_TRAVEL = re.compile(
    r"\b(?:flight|flies|fly|takes|lasts|long|journey|trip|train|lands?|arrives?|hours? later)\b",
    re.IGNORECASE,
)
_SPOKEN = re.compile(
    r"\b([a-z]+(?:-[a-z]+)?)(?=[\s-]+(?:hours?|minutes?|days?|weeks?|o'?clock|[ap]\.?m\b))", re.IGNORECASE
)
_HERE = re.compile(r"\b(?:there|it|that city|here)\b", re.IGNORECASE)
_NOT_CLOCKS = re.compile(
    r"\btimes (?:\d|the|it|that|my|as)\b|\d\s*times\b|\btimes (?:two|three|four|five|"
    r"ten)\b|\bhow many times\b",
    re.IGNORECASE,
)
_NOW = re.compile(
    r"\b(?:what(?:'s| is)?|tell me|give me|do you have|get|show me|know|check|current|look "
    r"up)\b.*\b(?:time|date|day|clock)\b|\btime is it\b"
    r"|\bwhat day\b|\bhow late\b|\bday is it\b|\btime\b.*\b(?:now|in|at)\b|\bmonth\b|\b(?:right now|"
    r"today)\b|\bwhich day\b|\bdate\b|\bweekday\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class _TimeOfDay:
    minutes: int
    label: str
    start: int
    end: int


def read_times(text: str, agenda: Agenda) -> bool:
    """Adds the tasks of a clause about clocks; false when it is about something else."""
    text = _SPOKEN.sub(lambda match: numerals.leading_number([match[1].lower()])[0] or match[1], text)
    places, moments = places_in(text), _times_of_day(text)
    if _states(text, places, moments, agenda):
        return True
    follows = bool(places) and (agenda.moment is not None or (bool(agenda.place) and "difference" in text))
    if not (_TOPIC.search(text) or (moments and places) or follows) or (
        _NOT_CLOCKS.search(text) and not places
    ):
        return False
    if not (
        places
        or agenda.place
        or agenda.places
        or re.search(r"\btime\b|\bday\b|\bdate\b|\bmonth\b|\bclock\b|\bhow late\b", text, re.IGNORECASE)
    ):
        return False
    for reading in (_gap, _elsewhere, _until, _later, _now):
        if reading(text, places, moments, agenda):
            if places:
                agenda.place = places[0].name
            return True
    return False


_STATEMENT = re.compile(
    r"\b(?:what|how|when|which|is it|tell|give|convert|show|difference|compare|until|time "
    r"is|list|do i|should)\b|\?",
    re.IGNORECASE,
)
_STATED = re.compile(
    r"\b(?:live[sd]?|based|office|work(?:s|ing)?|located|stay(?:s|ing)?|is in|am in|are in|"
    r"from|flying|travel\w*|moved|team|colleague|friend|client)\b",
    re.IGNORECASE,
)


def _states(text: str, places: tuple[Place, ...], moments: list[_TimeOfDay], agenda: Agenda) -> bool:
    """Takes in what a statement says of times and places, for the question that follows."""
    asks = _STATEMENT.search(
        re.sub(r"^\s*when\b(?! is| do| does| will)|^\s*when (?=it)", "", text, flags=re.IGNORECASE)
    )
    if asks or re.search(r"\b(?:remember|note|store|save)\b", text, re.IGNORECASE):
        return False
    if moments and (places or re.search(r"\b(?:at|starts?|begins?|leaves?|departs?|is)\b", text)):
        named = places[0].name if places else agenda.place
        agenda.moment = (
            moments[0].minutes,
            min(places, key=lambda place: _distance(place, moments[0])).name if places else named,
            _duration(text),
        )
        agenda.place = agenda.moment[1]
        agenda.places += [place.name for place in places]
        return bool(agenda.place)
    if agenda.moment and not places and _TRAVEL.search(text) and _duration(text):
        agenda.moment = (*agenda.moment[:2], agenda.moment[2] + _duration(text))
        return True
    if places and _STATED.search(text):
        agenda.places += [place.name for place in places]
        return True
    return False


_GAP_PHRASE = re.compile(
    r"^(?:the |their )?(?:(?:number of |amount of )?hours? (?:between|from)\b"
    r"|(?:current )?(?:time|hours?|time ?zone)?(?: zone)?\s*(?:difference|gap|offset)(?: "
    r"in (?:hours|time))?\s+(?:between|from)\b)",
    re.IGNORECASE,
)


def gap_value(text: str, agenda: Agenda) -> Formula | None:
    """The time difference between two places as a value for arithmetic."""
    places = _distinct(places_in(text))
    if (
        len(places) != 2
        or not _GAP_PHRASE.match(text)
        or text[places[1].end :].strip(" ?.") not in ("", "in hours", "time")
    ):
        return None
    gap = _gap_task(places[0], places[1], agenda)
    return agenda.result(Gap(gap.first, gap.second, answers=False), "hour")


def _distinct(places: tuple[Place, ...]) -> list[Place]:
    return list({place.name.lower(): place for place in places}.values())


def _clock(place: Place, agenda: Agenda, *, answers: bool) -> int:
    for index in range(agenda.starts[-1] if agenda.starts else 0, len(agenda.tasks)):
        task = agenda.tasks[index]
        if isinstance(task, Clock) and task.zone == place.zone and task.place == place.name:
            agenda.tasks[index] = Clock(task.zone, task.place, task.answers or answers)
            return index
    return agenda.add(Clock(place.zone, place.name, answers))


def _gap_task(first: Place, second: Place, agenda: Agenda) -> Gap:
    one, other = (_clock(place, agenda, answers=False) for place in (first, second))
    return Gap(one, other)


def _named(name: str) -> Place | None:
    found = places_in(name)
    return found[0] if found else None


def _with_context(places: tuple[Place, ...], agenda: Agenda) -> list[Place]:
    """The places of the clause; a single one is joined by the place spoken of before."""
    found = _distinct(places)
    if not found and len(set(agenda.places)) >= 2:
        return [place for name in dict.fromkeys(agenda.places) if (place := _named(name))]
    if len(found) == 1 and agenda.place and agenda.place != found[0].name:
        before = _named(agenda.place)
        return [before, *found] if before else found
    return found


def _gap(text: str, places: tuple[Place, ...], moments: list[_TimeOfDay], agenda: Agenda) -> bool:
    if not _GAP.search(text) or (moments and not re.search(r"\bahead\b|\bbehind\b", text)):
        return False
    found = _with_context(places, agenda)
    if re.search(r"\boffset\b", text) and sum(place.zone != "UTC" for place in found) == 1:
        return _now(
            f"what time is it in {next(place.name for place in found if place.zone != 'UTC')}",
            tuple(place for place in found if place.zone != "UTC"),
            [],
            agenda,
        )
    if len(found) == 1:
        found.append(Place("UTC", "UTC", 0, 0)) if found[0].zone != "UTC" else None
    if len(found) < 2:
        return False
    if asks_for_both_times(text):
        for place in found[:2]:
            _clock(place, agenda, answers=True)
    first, second = found[0], found[1]
    match = re.search(r"\b(?:ahead of|behind|than|from)\b", text, re.IGNORECASE)
    if match and len(_distinct(places)) == 2 and first.start > match.end():
        first, second = second, first
    for other in found[2:]:
        agenda.result(_gap_task(first, other, agenda), "hour")
    value = agenda.result(_gap_task(first, second, agenda), "hour")
    if re.search(r"\bhow many minutes\b|\bin minutes\b", text, re.IGNORECASE):
        agenda.result(Calculate(operation("*", value, Number("60")), "minute"), "minute")
    return True


def asks_for_both_times(text: str) -> bool:
    return bool(
        re.search(r"\bwhat time\b|\bcurrent times?\b|\btimes in\b|\bthe time in\b", text, re.IGNORECASE)
    )


def _elsewhere(text: str, places: tuple[Place, ...], moments: list[_TimeOfDay], agenda: Agenda) -> bool:
    """`When it is 15:00 in Tokyo, what time is it in Paris?`"""
    found = _with_context(places, agenda)
    others = places or tuple(place for name in agenda.places if (place := _named(name)))
    if (
        not moments
        and agenda.moment
        and len({*(place.name for place in others), agenda.moment[1]}) > 1
        and not re.search(r"\bnow\b|\bcurrent\b", text)
    ):
        return _stated_elsewhere(text, others, agenda)
    if not moments or len(found) < 2 or _UNTIL.search(text):
        return False
    moment = moments[0]
    present = _distinct(places)
    source = (
        min(present, key=lambda place: _distance(place, moment))
        if len(present) > 1
        else _single_source(found, present, moment, text)
    )
    travel = _duration(text) if _TRAVEL.search(text) else 0
    for target in found:
        if target.zone == source.zone and target.name == source.name:
            continue
        gap = agenda.add(
            Gap(_clock(target, agenda, answers=False), _clock(source, agenda, answers=False), answers=False)
        )
        agenda.add(Elsewhere(moment.minutes, gap, source.name, target.name, travel))
    return True


def _stated_elsewhere(text: str, places: tuple[Place, ...], agenda: Agenda) -> bool:
    """`My meeting is at 10:00 in London. What time is that in Singapore?`"""
    assert agenda.moment is not None
    minutes, name, passed = agenda.moment
    source = _named(name)
    if source is None:
        return False
    for target in _distinct(places):
        if target.name == source.name:
            continue
        gap = agenda.add(
            Gap(_clock(target, agenda, answers=False), _clock(source, agenda, answers=False), answers=False)
        )
        agenda.add(
            Elsewhere(
                minutes,
                gap,
                source.name,
                target.name,
                passed + (_duration(text) if _TRAVEL.search(text) else 0),
            )
        )
    return True


def _single_source(found: list[Place], present: list[Place], moment: _TimeOfDay, text: str) -> Place:
    """With one place named, it is the source when it stands right behind the time."""
    beside = present[0].start >= moment.end and present[0].start - moment.end < 8
    return present[0] if beside else found[0]


def _distance(place: Place, moment: _TimeOfDay) -> int:
    if place.start >= moment.end:
        return place.start - moment.end
    # `10:00 in Oslo` binds tighter than `in Oslo at 10:00`, and a place far before not at all.
    return moment.start - place.end + 6


def _until(text: str, places: tuple[Place, ...], moments: list[_TimeOfDay], agenda: Agenda) -> bool:
    if not moments or not _UNTIL.search(text):
        return False
    place = places[0] if places else (_named(agenda.place) or _UTC)
    agenda.result(Until(_clock(place, agenda, answers=False), moments[0].minutes, moments[0].label), "minute")
    return True


def _later(text: str, places: tuple[Place, ...], moments: list[_TimeOfDay], agenda: Agenda) -> bool:
    """`What time will it be in Rome in 5 hours?`"""
    minutes = _duration(text)
    if (
        minutes == 0
        or moments
        or not re.search(r"\btime\b|\bclock\b|\bday\b|\bdate\b|\bhow late\b", text, re.IGNORECASE)
    ):
        return False
    if not places and not agenda.place:
        agenda.add(unknown_place("the time there"))
        return True
    minutes = -minutes if _AGO.search(text) else minutes
    for place in _distinct(places) or [_named(agenda.place) or _UTC]:
        agenda.add(Later(_clock(place, agenda, answers=False), minutes))
    return True


def _now(text: str, places: tuple[Place, ...], moments: list[_TimeOfDay], agenda: Agenda) -> bool:
    if moments or not (_NOW.search(text) or (places and re.search(r"\btime\b", text, re.IGNORECASE))):
        return False
    unknown = _unknown_place(text) if not places else ""
    if unknown:
        agenda.add(Say("told", f"I do not know the time zone of {unknown}."))
        return True
    if not agenda.place and agenda.places:
        agenda.place = agenda.places[-1]
    found = _distinct(places)
    if not found and not agenda.place and re.search(r"\b(?:there|that city|that place)\b", text):
        agenda.add(unknown_place("the time there"))
        return True
    if not found:
        found = [
            (_named(agenda.place) if agenda.place and _HERE.search(text.replace("is it", "")) else None)
            or _UTC
        ]
    for place in found:
        _clock(place, agenda, answers=True)
    return True


def _unknown_place(text: str) -> str:
    """A capitalised name behind `in` that no zone is known for."""
    match = re.search(r"\b(?:in|at)\s+((?:[A-Z][\w'-]*)(?:\s+[A-Z][\w'-]*)*)", text)
    return match.group(1) if match else ""


def _times_of_day(text: str) -> list[_TimeOfDay]:
    found = []
    for match in _CLOCK_TIME.finditer(text):
        hour, minute = _hour_and_minute(match)
        if hour < 24 and minute < 60:
            found.append(_TimeOfDay(hour * 60 + minute, match.group().strip(), *match.span()))
    return found


def _hour_and_minute(match: re.Match[str]) -> tuple[int, int]:
    if match["word"]:
        return (0 if match["word"].lower() == "midnight" else 12), 0
    if match["hour24"]:
        return int(match["hour24"]), int(match["minute24"])
    if match["oclock"]:
        hour = int(match["oclock"])
        return (hour + 12 if match["part"] in ("afternoon", "evening") and hour < 12 else hour), 0
    hour = int(match["hour"])
    if not 1 <= hour <= 12:
        return (hour if hour < 24 else 99), int(match["minute"] or 0)
    return hour % 12 + (12 if match["half"][0] in "pP" else 0), int(match["minute"] or 0)


def _duration(text: str) -> int:
    """Minutes that the text speaks of, 0 for none."""
    total = 0.0
    for match in _DURATION.finditer(text):
        total += float(match["count"]) * _UNIT_MINUTES[match["unit"][0].lower()]
    if re.search(r"\bhalf an hour\b", text):
        total += 30
    elif re.search(r"\ban hour\b", text):
        total += 60 + (30 if re.search(r"\ban hour and a half\b", text) else 0)
    return round(total)


_UTC = Place("UTC", "UTC", 0, 0)
