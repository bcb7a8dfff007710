"""How tasks about notes are carried out."""

from collections.abc import Generator

from treadle_server.models.demo import notes, observations, wording
from treadle_server.models.demo.abilities import Ability
from treadle_server.models.demo.arithmetic.formulas import shown
from treadle_server.models.demo.steps import (
    FINAL,
    Call,
    Desk,
    Failure,
    Finding,
    Seen,
    Solver,
    call_of,
    may_pass,
    use,
)
from treadle_server.models.demo.tasks import (
    Recall,
    Store,
)


def recall_note(task: Recall, desk: Desk) -> Solver:
    if Ability.FETCH not in desk.skills:
        return _without_notes(task)
    text = yield from _fetched(notes.key_of(task.phrase), task, desk)
    if text is None:
        return _not_noted(task)
    said = wording.noted(task.phrase, text) if task.answers else ""
    return Finding(said, observations.number_in(text), raw=text)


def _without_notes(task: Recall) -> Finding:
    subject = wording.yours(task.phrase)
    if task.known:
        return _said_before(
            task, f"I have no tool that {Ability.FETCH.value}, but in this conversation you said"
        )
    if task.guess:
        return Finding(
            f"I cannot tell {subject}: I have no source of general knowledge and no tool that "
            f"{Ability.FETCH.value}.",
            failed=True,
        )
    raise Failure(wording.lacking(Ability.FETCH.value, f"look up {subject}"))


def _not_noted(task: Recall) -> Finding:
    if task.known:
        return _said_before(task, "I find no note on it, but you said")
    tail = " and I have no source of general knowledge" if task.guess else ""
    return Finding(f"I have no note about {wording.yours(task.phrase)}{tail}.", failed=True)


def _said_before(task: Recall, opening: str) -> Finding:
    sentence = f"{opening} that {wording.yours(task.phrase)} is {task.known}."
    return Finding(
        sentence if task.answers else "",
        observations.number_in(task.known),
        raw=task.known,
        equation=sentence,
    )


def _fetched(key: str, task: Recall, desk: Desk) -> Generator[Call, Seen, str | None]:
    """The note under the key, or under the stored key most like it."""
    skill = desk.skills[Ability.FETCH][0]
    purpose = f"look up the note {key}"
    seen = yield call_of(skill, {"key": key}, purpose)
    if (
        not seen.ok
        and may_pass(seen)
        and seen.status not in FINAL
        and not observations.says_nothing(seen.text)
    ):
        seen = yield call_of(skill, {"key": key}, f"{purpose}, in a second attempt")
        if not seen.ok and not observations.says_nothing(seen.text):
            raise Failure(wording.failed(purpose, seen.status, seen.text))
    if seen.status in FINAL:
        raise Failure(wording.failed(purpose, seen.status, seen.text))
    if seen.ok and not observations.says_nothing(seen.text):
        return observations.note_text(seen.text)
    listing = yield call_of(skill, {"key": ""}, "list the keys of all notes, as there is none of that name")
    other = notes.best_key(key, observations.keys_in(listing.text)) if listing.ok else ""
    if other == key and seen.ok:
        return observations.note_text(seen.text)
    if not other or other == key:
        return None
    seen = yield call_of(skill, {"key": other}, f"look up the note {other}")
    return observations.note_text(seen.text) if seen.ok and not observations.says_nothing(seen.text) else None


def list_keys(desk: Desk) -> Solver:
    seen = yield from use(
        desk,
        Ability.FETCH,
        {"key": ""},
        "list the keys of all notes",
        lambda seen: True,
        needed_for="list what is stored",
    )
    if observations.says_nothing(seen.text):
        return Finding("I have no notes so far.")
    keys = observations.keys_in(seen.text)
    return Finding(
        f"I have notes under these keys: {', '.join(keys)}." if keys else "I have no notes so far."
    )


def store_note(task: Store, desk: Desk) -> Solver:
    text = task.text
    if task.value is not None:
        finding = desk.findings[task.value]
        text = (
            shown(finding.value).split(" (")[0]
            if finding.value is not None
            else observations.told(finding.raw)
        )
    yield from use(
        desk,
        Ability.STORE,
        {"key": task.key, "text": text},
        f"store {text} as {task.key}",
        lambda seen: True,
        needed_for=f"remember {task.key.replace('_', ' ')} beyond this conversation",
    )
    return Finding(f"I have stored {text} under {task.key}.", raw=text)
