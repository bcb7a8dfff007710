"""Puts the wall clock of a server, while it runs or between two of its lives."""

import struct
from pathlib import Path

_SHARED = struct.Struct("=qQ")


class WallClock:
    """As the machine's until it is put; only for the processes with its `environment`."""

    def __init__(self, folder: Path, libraries: Path) -> None:
        self._path = folder / "clock"
        self._path.write_bytes(bytes(_SHARED.size))
        self.environment = {
            "LD_PRELOAD": str(libraries / "clock.so"),
            "CLOCK_SHIM_OFFSET": str(self._path),
        }

    def put(self, seconds: float) -> None:
        """From now on it is off by so much."""
        with self._path.open("r+b") as file:
            file.write(struct.pack("=q", round(seconds * 1_000_000_000)))

    @property
    def looks(self) -> int:
        """How often it was looked at."""
        return int(_SHARED.unpack(self._path.read_bytes())[1])
