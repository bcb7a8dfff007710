"""Keeps callers from filling the server's log: of each kind of line only so many are written in a second."""

import logging

from treadle_server.services.rates import Rate

LINES_PER_SECOND = 50.0


class LogLines:
    """A burst of `per_second` of each kind and then so many a second. Kinds are few and given by the code."""

    __slots__ = ("_left_out", "_per_second", "_rates")

    def __init__(self, per_second: float = LINES_PER_SECOND) -> None:
        self._per_second = per_second
        self._rates: dict[str, Rate] = {}
        self._left_out: dict[str, int] = {}

    def admit(self, kind: str) -> dict[str, int] | None:
        """What the line is to say besides, `left_out` of its kind before it; None when it is left out."""
        rate = self._rates.get(kind)
        if rate is None:
            rate = self._rates[kind] = Rate(self._per_second)
        if not rate.take():
            self._left_out[kind] = self._left_out.get(kind, 0) + 1
            return None
        left_out = self._left_out.pop(kind, 0)
        return {"left_out": left_out} if left_out else {}


class GoneCallers(logging.Filter):
    """Leaves out what grpc logs, with a traceback each, of answers whose caller has gone meanwhile."""

    def filter(self, record: logging.LogRecord) -> bool:
        kind = record.exc_info[0] if record.exc_info else None
        raised = kind is not None and kind.__name__ == "ExecuteBatchError"
        return not (raised or "ExecuteBatchError" in str(record.msg))


def quieten() -> None:
    """For the loggers that grpc's tasks end up in."""
    gone = GoneCallers()
    for name in ("grpc._cython.cygrpc", "asyncio"):
        logging.getLogger(name).addFilter(gone)
