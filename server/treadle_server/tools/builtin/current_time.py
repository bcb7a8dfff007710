"""The time of day anywhere."""

import difflib
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Annotated
from zoneinfo import ZoneInfo, available_timezones

from treadle_server.core.json_text import canonical_json

_CLOSE_MATCHES = 5
_WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def current_time(
    now_micros: int,
    /,
    time_zone: Annotated[
        str,
        "IANA name of the time zone, such as Europe/Berlin or America/New_York",
        {"maxLength": 100},
    ] = "UTC",
) -> str:
    """Returns the current date, time, UTC offset and weekday in a time zone, as JSON. Use it whenever the
    answer depends on today's date or the time of day."""
    if time_zone not in _zone_names():
        raise ValueError(f"there is no time zone {time_zone!r}{_suggestion(time_zone)}")
    moment = (_EPOCH + timedelta(microseconds=now_micros)).astimezone(ZoneInfo(time_zone))
    iso = moment.isoformat(timespec="seconds")
    return canonical_json(
        {
            "iso": iso,
            "time_zone": time_zone,
            "utc_offset": iso[len("2000-01-01T00:00:00") :],
            "weekday": _WEEKDAYS[moment.weekday()],
        }
    )


@cache
def _zone_names() -> frozenset[str]:
    return frozenset(available_timezones())


def _suggestion(time_zone: str) -> str:
    """Compares whole names and cities alone, without regard to case and spaces."""
    wanted = time_zone.strip().replace(" ", "_").lower()
    spellings: dict[str, str] = {}
    for name in sorted(_zone_names()):
        spellings.setdefault(name.rpartition("/")[2].lower(), name)
        spellings[name.lower()] = name
    close = difflib.get_close_matches(wanted, spellings, n=_CLOSE_MATCHES)
    names = dict.fromkeys(spellings[spelling] for spelling in close)
    return f"; close are {', '.join(names)}" if names else "; give an IANA name such as Europe/Berlin"
