"""The sentences of answers and thoughts."""

import re
from datetime import timedelta
from decimal import Decimal

from treadle_server.core.kinds import CallStatus
from treadle_server.models.demo.arithmetic.formulas import shown
from treadle_server.models.demo.observations import Moment
from treadle_server.models.demo.tasks import Elsewhere

_SCOPE = "I work by rules: arithmetic, times in zones, notes and questions about JSON"
_ENDED = {
    CallStatus.FAILED: "failed",
    CallStatus.TIMED_OUT: "took too long",
    CallStatus.INVALID: "was not accepted",
    CallStatus.REJECTED: "was rejected",
    CallStatus.CANCELLED: "was cancelled",
    CallStatus.ABANDONED: "was abandoned",
    CallStatus.UNKNOWN: "has an unknown outcome",
}


def capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def yours(phrase: str) -> str:
    """The user's `my` as `your`."""
    return re.sub(r"\b(my|our)\b", "your", phrase, flags=re.IGNORECASE)


def answer(said: str, unit: str) -> str:
    """A money amount is shown with its cents."""
    if unit == "$" and re.fullmatch(r"-?\d+\.\d", said):
        said += "0"
    return f"The answer is {said}."


def lacking(ability: str, needed_for: str) -> str:
    purpose = f"I cannot {needed_for}" if needed_for else "I cannot do this"
    return f"{purpose}: I have no tool that {ability}."


def failed(purpose: str, status: CallStatus, text: str) -> str:
    if status == CallStatus.SUCCEEDED:
        return f"I could not {purpose}, because the tool's answer was of no use: {_short(text)}"
    return f"I could not {purpose}, because the call {_ENDED.get(status, 'failed')}: {_short(text)}"


def _short(text: str) -> str:
    text = " ".join(text.split()) or "it gave no reason"
    text = text if len(text) <= 300 else text[:297] + "..."
    return text if text.endswith((".", "!", "?")) else text + "."


def noted(phrase: str, text: str) -> str:
    subject = capital(yours(phrase))
    words = re.findall(r"\w+", phrase.lower())
    if words and re.search(rf"\b{re.escape(words[-1])}\b \w+ ", text.lower()) and len(text.split()) > 3:
        return f"The note on {yours(phrase)} says: {text}"
    if len(text.split()) <= 12 and "\n" not in text:
        verb = (
            "are"
            if re.search(r"\b(?:\w{3,}[^s\W]s)$", phrase) and not phrase.endswith(("ss", "us", "is"))
            else "is"
        )
        return f"{subject} {verb} {text.rstrip('.')}."
    return f"The note on {yours(phrase)} says: {text}"


def found(about: str, said: str) -> str:
    return (
        f"{capital(about)} is {said}." if said != "nothing" else f"I found nothing for {about} in the JSON."
    )


def clock(place: str, moment: Moment) -> str:
    return (
        f"In {place} it is {moment.shown:%H:%M} on {moment.weekday}, {_date(moment)} "
        f"(UTC{_signed(moment.offset)})."
    )


def whether(place: str, moment: Moment, asked: str) -> str:
    """Yes or no to a weekday, a month or the weekend."""
    facts = {moment.weekday.lower(), f"{moment.shown:%B}".lower()}
    facts |= {"weekend"} if moment.weekday in ("Saturday", "Sunday") else {"weekday"}
    return f"{'Yes' if asked in facts else 'No'}: {clock(place, moment)[0].lower()}{clock(place, moment)[1:]}"


def _date(moment: Moment) -> str:
    return f"{moment.shown.day} {moment.shown:%B %Y}"


def _signed(offset: str) -> str:
    minutes = round(float(offset) * 60)
    sign = "-" if minutes < 0 else "+"
    return f"{sign}{abs(minutes) // 60:02d}:{abs(minutes) % 60:02d}"


def _hours(value: str) -> str:
    said = shown(value).removeprefix("-")
    return f"{said} hour" if said == "1" else f"{said} hours"


def gap(first: str, second: str, value: str) -> str:
    hours = Decimal(value)
    if hours == 0:
        return f"{first} and {second} show the same time: the difference is 0 hours."
    return f"{first} is {_hours(value)} {'ahead of' if hours > 0 else 'behind'} {second}."


def clock_time(minutes: Decimal) -> tuple[str, int]:
    """A time of day from minutes since midnight, and by how many days it is off."""
    days, rest = divmod(int(minutes), 1440)
    return f"{rest // 60:02d}:{rest % 60:02d}", days


def _day(days: int) -> str:
    words = {0: "", 1: " the next day", -1: " the previous day"}
    return words.get(days, f" {abs(days)} days {'later' if days > 0 else 'earlier'}")


def elsewhere(task: Elsewhere, moved: Decimal) -> str:
    said, days = clock_time(moved)
    start, _ = clock_time(Decimal(task.minutes))
    journey = f" and {_span(task.later)} have passed" if task.later else ""
    return f"When it is {start} in {task.source}{journey}, it is {said}{_day(days)} in {task.target}."


def _span(minutes: int) -> str:
    hours, rest = divmod(abs(minutes), 60)
    parts = [f"{hours} hour{'s' * (hours != 1)}"] * (hours > 0) + [f"{rest} minute{'s' * (rest != 1)}"] * (
        rest > 0
    )
    return " and ".join(parts) or "0 minutes"


def later(place: str, moment: Moment, minutes: int, value: Decimal) -> str:
    said, days = clock_time(value)
    date = moment.shown.replace(tzinfo=None) + timedelta(days=days)
    day = f"{date:%A}, {date.day} {date:%B %Y}"
    if minutes < 0:
        return f"{capital(_span(minutes))} ago it was {said} on {day} in {place}."
    return f"In {_span(minutes)} it will be {said} on {day} in {place}; now it is {moment.shown:%H:%M} there."


def until(place: str, moment: Moment, label: str, value: str) -> str:
    minutes = int(Decimal(value))
    return (
        f"In {place} it is {moment.shown:%H:%M}, so it is {_span(minutes)} ({minutes} minutes) until {label}."
    )


def small_talk(kind: str, abilities: list[str]) -> str:
    if kind == "thanks":
        return "You are welcome."
    offer = (
        f"Of the tools I have, {_listed(['one ' + ability for ability in abilities])}."
        if abilities
        else "I was given no tool that I can use, so there is little I can do now."
    )
    return (
        f"Hello. I answer by rules. {offer}"
        if kind == "greeting"
        else f"I answer by rules, step by step. {offer}"
    )


def _listed(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def said(kind: str, text: str) -> str:
    match kind:
        case "lack":
            return f"I cannot do this: {text}."
        case "unread":
            return f'I did not understand this and have no tool for it: "{text.strip()}". {_SCOPE}.'
        case "long":
            return "I did not read all of this: it is too long for my rules."
        case "unclear":
            return f"I did not understand what part {text} plays in this, so I do not guess an answer."
        case "fact":
            return f"I take it for this conversation that {text}."
        case _:
            return text
