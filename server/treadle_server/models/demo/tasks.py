"""What a question is split into, and what has been said so far."""

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, field, fields

from treadle_server.core.spec import ToolSpec
from treadle_server.models.demo.arithmetic.formulas import Formula, Result, is_plain, results


@dataclass(frozen=True, slots=True)
class Calculate:
    formula: Formula
    unit: str = ""
    """`$` for money, else what the value counts."""
    answers: bool = True
    """False for a step on the way to another."""
    asked: str = ""
    """`more` for a yes-or-no question that a positive value answers with yes, `less` for a negative one."""


@dataclass(frozen=True, slots=True)
class Recall:
    phrase: str
    known: str = ""
    """What the user said of it in this conversation."""
    after: tuple[int, ...] = ()
    """Tasks that store notes before."""
    answers: bool = True
    guess: bool = False
    """True when nothing but the form of the question says that there might be a note."""


@dataclass(frozen=True, slots=True)
class ListNotes:
    after: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Store:
    key: str
    text: str
    value: int | None = None
    """Task whose value is the text."""
    after: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Query:
    document: str
    query: str
    about: str
    fold: str = ""
    """How a calculator can fold `plain_query`'s list if the document tool cannot: `sum` or `mean`."""
    plain_query: str = ""
    answers: bool = True


@dataclass(frozen=True, slots=True)
class RowTotal:
    """The sum of the products of each row that a query gave."""

    rows: int
    about: str


@dataclass(frozen=True, slots=True)
class Clock:
    zone: str
    place: str
    answers: bool = True
    asked: str = ""
    """A weekday, a month or `weekend`, for a yes-or-no question whether it is that."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Hours that one clock is ahead of the other."""

    first: int
    second: int
    answers: bool = True


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """A time of day at one clock, moved by some minutes, as another clock shows it."""

    minutes: int
    gap: int | None
    source: str
    target: str
    later: int = 0


@dataclass(frozen=True, slots=True)
class Later:
    """What a clock shows some minutes from now; negative for the past."""

    clock: int
    minutes: int


@dataclass(frozen=True, slots=True)
class Until:
    """How long it takes until a clock shows a time of day."""

    clock: int
    minutes: int
    label: str


@dataclass(frozen=True, slots=True)
class Errand:
    """A call of a tool outside the built-in abilities, with arguments found in the request."""

    tool: str
    arguments_json: str


@dataclass(frozen=True, slots=True)
class Say:
    """An answer without a tool: told, greeting, thanks, abilities, fact, lack, long, unread or unclear."""

    kind: str
    text: str


Task = (
    Calculate
    | Recall
    | ListNotes
    | Store
    | Query
    | RowTotal
    | Clock
    | Gap
    | Elsewhere
    | Later
    | Until
    | Errand
    | Say
)


def needs(task: Task) -> tuple[int, ...]:
    """The tasks whose findings this one uses."""
    match task:
        case Calculate(formula):
            return tuple(results(formula))
        case Store(value=int() as value):
            return (value,)
        case RowTotal(rows):
            return (rows,)
        case Gap(first, second):
            return (first, second)
        case Elsewhere():
            return (task.gap,) if task.gap is not None else ()
        case Later() | Until():
            return (task.clock,)
        case _:
            return ()


def follows(task: Task) -> tuple[int, ...]:
    """The tasks that must have ended before this one begins, well or badly."""
    after = task.after if isinstance(task, Recall | ListNotes | Store) else ()
    return (*needs(task), *after)


@dataclass(slots=True)
class Agenda:
    """The tasks of a conversation in the order of asking, and what its words can refer to."""

    tasks: list[Task] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    """First task of each question that a final answer was given to, and of the open one."""
    last: Formula | None = None
    """What `it` and `the result` mean."""
    last_unit: str = ""
    place: str = ""
    subject: str = ""
    """Key of the note spoken of last."""
    facts: dict[str, str] = field(default_factory=dict)
    """What the user stated without asking to store it, by key."""
    notes: dict[str, str] = field(default_factory=dict)
    documents: list[str] = field(default_factory=list)
    alone: bool = True
    """Whether the clause that is read now is a whole sentence."""
    fresh: bool = False
    """Whether the text that is read now holds a document."""
    owner: Query | None = None
    """What `which one has it` asks for behind a maximum or a minimum."""
    moment: tuple[int, str, int] | None = None
    """A time of day the user stated, its place, and minutes that pass from then on."""
    places: list[str] = field(default_factory=list)
    """Places that people were said to be at."""
    stores: list[int] = field(default_factory=list)
    recalls: dict[str, int] = field(default_factory=dict)
    tools: tuple[ToolSpec, ...] = ()
    """What is offered, for requests outside the built-in abilities."""

    def add(self, task: Task) -> int:
        self.tasks.append(task)
        return len(self.tasks) - 1

    def result(self, task: Task, unit: str = "") -> Result:
        """Adds a task whose value `it` then means."""
        value = Result(self.add(task))
        self.last, self.last_unit = value, unit
        return value

    def value(self, formula: Formula, unit: str = "") -> Formula:
        """Makes a step of a formula that has something to calculate."""
        if is_plain(formula):
            self.last = formula
            return formula
        return self.result(Calculate(formula, unit, answers=False), unit)

    def recall(self, key: str, phrase: str, *, answers: bool, guess: bool = False) -> Result:
        """The note on something; asked once for a question, however often it is mentioned."""
        if key in self.recalls:
            return Result(self.recalls[key])
        known = self.notes.get(key, self.facts.get(key, ""))
        task = Recall(phrase, known, tuple(self.stores), answers=answers, guess=guess)
        self.recalls[key] = self.add(task)
        return Result(self.recalls[key])

    def attempt(self, reading: Callable[[], bool]) -> bool:
        """Keeps what a reading added only if it succeeds."""
        before = {item.name: copy(getattr(self, item.name)) for item in fields(self)}
        if reading():
            return True
        for name, value in before.items():
            setattr(self, name, value)
        return False
