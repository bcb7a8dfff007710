"""What is said of threads that retention took."""

from datetime import UTC, datetime, timedelta

from treadle_server.core.errors import Reason, Refused

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def log_expired(name: str, last: int, expire_time: int) -> Refused:
    """Refuses to go on in a log that is gone: there is a gap, and the reader must know."""
    when = _text(expire_time)
    return Refused(
        Reason.SEQUENCE_OUT_OF_RANGE,
        f"{name} expired at {when}: retention took it with its events, up to {last}",
        metadata={"first": str(last + 1), "last": str(last), "expire_time": when},
        resource=("treadle.dev/Thread", name),
    )


def thread_expired(name: str, expire_time: int) -> Refused:
    """As not_found, of a thread that its caller may look for in vain for ever."""
    when = _text(expire_time)
    return Refused(
        Reason.RESOURCE_NOT_FOUND,
        f"{name} does not exist any more: it expired at {when}",
        metadata={"resource": name, "expire_time": when},
        resource=("treadle.dev/Thread", name),
    )


def commits_expired(horizon: int, newest: int) -> Refused:
    """Refuses a cursor from before what retention took."""
    return Refused(
        Reason.SEQUENCE_OUT_OF_RANGE,
        "retention took events after this cursor; the one that is given here goes on behind them",
        metadata={"first": str(horizon), "last": str(newest)},
    )


def _text(micros: int) -> str:
    """RFC 3339, to the millisecond."""
    when = _EPOCH + timedelta(microseconds=micros)
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")
