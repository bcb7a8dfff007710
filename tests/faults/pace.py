"""Trials of suspects, some times faster than those of a server in use."""

from treadle_server.engine.quarantine import Pace

PACE = Pace(gather_seconds=0.5, turn_seconds=0.5, turn_seconds_max=2.0, without_seconds=3.0)
