"""Trials of suspects: turns as in a server in use, and less time to show that it lives without one."""

from treadle_server.engine.quarantine import Pace

PACE = Pace(without_seconds=4.0)
