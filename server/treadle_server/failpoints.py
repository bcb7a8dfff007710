"""Places where a test can stop the process: named in TREADLE_FAILPOINTS, free when it is not set.

`commit.before@17=kill;request.before#3=exit:70;commit.after=hang`: a name, then `@` and the value or `#` and
the count of the hit that triggers (neither: the first hit), then `kill`, `exit:CODE` or `hang`.
"""

import os
import re
import signal
import threading
from dataclasses import dataclass

VARIABLE = "TREADLE_FAILPOINTS"

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
    value, nth = match["value"], match["nth"]
    return _Rule(match["name"], int(value) if value else None, int(nth) if nth else None, match["action"])


def _perform(action: str) -> None:
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if action.startswith("exit:"):
        os._exit(int(action.removeprefix("exit:")))
    threading.Event().wait()  # `hang`, and the moment until a kill arrives


configure()
