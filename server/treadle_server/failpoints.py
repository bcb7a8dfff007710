"""Places where a test can stop the process: named in TREADLE_FAILPOINTS, free when it is not set.

`commit.before@17=kill;request.before#3=exit:70;commit.after=hang`: a name of `NAMES`, then `@` and the value
or `#` and the count of the hit that triggers (neither: the first hit), then `kill`, `exit:CODE` or `hang`.
"""

import os
import re
import signal
import threading
from dataclasses import dataclass

VARIABLE = "TREADLE_FAILPOINTS"

NAMES = {
    "request.before": "the request id of a call is written with what the call does, and not committed",
    "request.after": "both are committed, and the caller is not answered",
    "intent.before": "a model or tool call is about to be recorded as begun; value: the event's sequence",
    "intent.after": "the intent is as durable as is promised, and nothing is called; value: iteration",
    "model.before": "the model is about to be called; value: iteration",
    "model.after": "the model has answered, and nothing is recorded; value: iteration",
    "dispatch.before": "a tool call is about to go out; value: iteration",
    "dispatch.after": "the toolbox has the call and waits for something; value: iteration",
    "effect.before": "the tool has the call and has done nothing",
    "effect.after": "the tool has done it and has not answered",
    "result.before": "the tool's answer is back, and nothing is recorded; value: iteration",
    "result.after": "the outcome of a model or tool call is recorded, and not committed; value: iteration",
    "decision.after": "a person's decision about an approval is committed, and nothing follows from it yet",
    "commit.before": "events are written and not committed; values: their sequences",
    "commit.after": "events are committed, and nobody is told; values: their sequences",
    "publish.before": "the feed is told of committed events, and nobody is woken; values: their sequences",
    "publish.after": "the feed has woken who watches; values: their sequences",
    "child.before": "the thread of an agent that is called is about to be made",
    "child.after": "it is made, and the calling thread has not recorded it",
    "mail.before": "what a thread tells another is committed, and the other has not taken it",
    "migration.before": "a migration of the schema is applied and not committed; value: its number",
    "migration.after": "it is committed, and the next is not begun; value: its number",
    "send.before": "an answer, or a message of a stream, is about to be sent",
    "send.after": "a message of a stream is sent",
}
"""Every failpoint, and what is so when it is passed. A value is what `@` names."""

_RULE = re.compile(r"(?P<name>[a-z_.]+)(?:@(?P<value>\d+)|#(?P<nth>\d+))?=(?P<action>kill|hang|exit:\d+)")


@dataclass(slots=True)
class _Rule:
    name: str
    value: int | None
    nth: int | None
    action: str
    hits: int = 0

    def triggers(self, first: int, last: int) -> bool:
        self.hits += 1
        if self.value is not None:
            return first <= self.value <= last
        return self.nth is None or self.hits == self.nth


ACTIVE = False
"""Call sites ask this first: `if failpoints.ACTIVE: failpoints.hit(...)`."""

_rules: list[_Rule] = []
_lock = threading.Lock()


def configure(text: str | None = None) -> None:
    """Replaces all rules by those of `text`, or of the environment. Raises ValueError for a faulty one."""
    global ACTIVE
    source = os.environ.get(VARIABLE, "") if text is None else text
    _rules[:] = [_parse(part) for part in source.split(";") if part.strip()]
    ACTIVE = bool(_rules)


def hit(name: str, value: int = 0) -> None:
    """Passes a place. Returns unless a rule stops the process here."""
    hit_range(name, value, value)


def hit_range(name: str, first: int, last: int) -> None:
    """Passes a place that stands for all values from `first` to `last`. Counts as one hit."""
    with _lock:
        actions = [rule.action for rule in _rules if rule.name == name and rule.triggers(first, last)]
    for action in actions:
        _perform(action)


def _parse(part: str) -> _Rule:
    match = _RULE.fullmatch(part.strip())
    if match is None:
        raise ValueError(f"{VARIABLE}: {part.strip()!r} is not name[@value|#n]=kill|hang|exit:CODE")
    if match["name"] not in NAMES:
        raise ValueError(f"{VARIABLE}: there is no failpoint {match['name']!r}; there are {', '.join(NAMES)}")
    value, nth = match["value"], match["nth"]
    return _Rule(match["name"], int(value) if value else None, int(nth) if nth else None, match["action"])


def _perform(action: str) -> None:
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if action.startswith("exit:"):
        os._exit(int(action.removeprefix("exit:")))
    threading.Event().wait()  # `hang`, and the moment until a kill arrives


configure()
