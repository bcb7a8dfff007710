"""Which state may follow which, and what each control does in each state: tables, nothing else."""

from enum import Enum, auto

from treadle_server.core.kinds import TERMINAL, WAITING, ThreadState

S = ThreadState

_ENDS = frozenset(TERMINAL)

TRANSITIONS: dict[ThreadState, frozenset[ThreadState]] = {
    S.UNSPECIFIED: frozenset({S.PENDING}),
    S.PENDING: _ENDS | {S.RUNNING, S.PAUSED},
    S.RUNNING: _ENDS | {S.WAITING_APPROVAL, S.WAITING_INPUT, S.PAUSED},
    S.WAITING_APPROVAL: _ENDS | {S.RUNNING, S.WAITING_INPUT, S.PAUSED},
    S.WAITING_INPUT: _ENDS | {S.RUNNING, S.WAITING_APPROVAL, S.PAUSED},
    S.PAUSED: _ENDS | {S.PENDING, S.RUNNING, S.WAITING_APPROVAL, S.WAITING_INPUT},
    S.COMPLETED: frozenset(),
    S.FAILED: frozenset(),
    S.CANCELLED: frozenset(),
    S.TIMED_OUT: frozenset(),
}


class Row(Enum):
    """What can be asked, a row of the control table."""

    PAUSE = auto()
    RESUME = auto()
    CANCEL = auto()
    COMPLETE = auto()
    ANSWER = auto()
    STEER = auto()
    TOOL_RESULT = auto()
    DECIDE = auto()
    FORK = auto()
    RETRY = auto()


class Column(Enum):
    """States that controls treat alike."""

    PENDING = auto()
    RUNNING = auto()
    WAITING = auto()
    PAUSED = auto()
    TERMINAL = auto()


class Reaction(Enum):
    """What a control does, a cell of the control table."""

    REFUSE = auto()
    NOTHING = auto()
    """OK, and no event."""
    PAUSE = auto()
    """PAUSED at once."""
    PAUSE_SOON = auto()
    """A pending command; PAUSED once nothing is in flight."""
    WITHDRAW = auto()
    """Takes a pending pause back; without one, nothing."""
    RESUME = auto()
    """To PENDING, RUNNING or the owed WAITING_*."""
    END = auto()
    """Ended at once."""
    END_SOON = auto()
    """A pending command; ended once everything in flight has stopped."""
    SAME_END = auto()
    """OK if the thread ended just so, else refused."""
    STORE = auto()
    """Durable now, taken at the next iteration."""
    SETTLE = auto()
    """Answers what is open under that id, else refused."""
    MAKE = auto()
    """Makes a new thread; this one is untouched."""


_CELLS: dict[Row, tuple[Reaction, Reaction, Reaction, Reaction, Reaction]] = {
    # asked:        PENDING            RUNNING              WAITING_*          PAUSED             terminal
    Row.PAUSE: (Reaction.PAUSE, Reaction.PAUSE_SOON, Reaction.PAUSE, Reaction.NOTHING, Reaction.REFUSE),
    Row.RESUME: (Reaction.NOTHING, Reaction.WITHDRAW, Reaction.NOTHING, Reaction.RESUME, Reaction.REFUSE),
    Row.CANCEL: (Reaction.END, Reaction.END_SOON, Reaction.END, Reaction.END, Reaction.SAME_END),
    Row.COMPLETE: (Reaction.END, Reaction.END_SOON, Reaction.END, Reaction.END, Reaction.SAME_END),
    Row.ANSWER: (Reaction.REFUSE, Reaction.SETTLE, Reaction.SETTLE, Reaction.SETTLE, Reaction.REFUSE),
    Row.STEER: (Reaction.STORE, Reaction.STORE, Reaction.STORE, Reaction.STORE, Reaction.REFUSE),
    Row.TOOL_RESULT: (Reaction.REFUSE, Reaction.SETTLE, Reaction.SETTLE, Reaction.SETTLE, Reaction.REFUSE),
    Row.DECIDE: (Reaction.REFUSE, Reaction.SETTLE, Reaction.SETTLE, Reaction.SETTLE, Reaction.REFUSE),
    Row.FORK: (Reaction.MAKE,) * 5,
    Row.RETRY: (Reaction.REFUSE, Reaction.REFUSE, Reaction.REFUSE, Reaction.REFUSE, Reaction.MAKE),
}

CONTROLS: dict[tuple[Row, Column], Reaction] = {
    (row, column): cell for row, cells in _CELLS.items() for column, cell in zip(Column, cells, strict=True)
}


def column(state: ThreadState) -> Column:
    """The column of the control table that a state belongs to."""
    if state in TERMINAL:
        return Column.TERMINAL
    if state in WAITING:
        return Column.WAITING
    return Column[state.name]


def reaction(row: Row, state: ThreadState) -> Reaction:
    """What asking `row` does to a thread in `state`."""
    return CONTROLS[row, column(state)]


def allowed(state: ThreadState) -> tuple[str, ...]:
    """Names of what may be asked in `state`, for the error that refuses something else."""
    return tuple(row.name for row in Row if reaction(row, state) not in (Reaction.REFUSE, Reaction.SAME_END))
