"""Who is on trial for bringing servers down: one row, replaced whole."""

import json

import structlog

from treadle_server.core.errors import Refused
from treadle_server.ports.log import ThreadKey
from treadle_server.ports.trials import LastLife, Phase, Trial
from treadle_server.stores.sqlite import checksums
from treadle_server.stores.sqlite.changes import Changes
from treadle_server.stores.sqlite.readers import Readers
from treadle_server.stores.sqlite.statements import Write

_LOG = structlog.get_logger(__name__)
_SELECT = "SELECT phase, threads, drained_epoch, checksum FROM trials"
_REPLACE = """
INSERT OR REPLACE INTO trials (one, phase, threads, drained_epoch, checksum) VALUES (1, ?, ?, ?, ?)"""


class SqliteTrials:
    """Implements `ports.trials.Trials`."""

    def __init__(self, changes: Changes, readers: Readers, *, epoch: int) -> None:
        self._changes = changes
        self._readers = readers
        self._epoch = epoch

    async def last_life(self) -> LastLife:
        """A damaged row accuses nobody."""
        try:
            row = await self._readers.row(_SELECT)
            if row is None:
                return LastLife(Trial(), drained=False)
            phase, threads, drained_epoch, checksum = row
            checksums.verify(checksum, "the trial of suspects", phase, threads, drained_epoch)
        except Refused as damage:
            _LOG.error("trial_forgotten", why=damage.message)
            return LastLife(Trial(), drained=False)
        keys = tuple(ThreadKey(tenant, thread) for tenant, thread in json.loads(threads))
        return LastLife(Trial(Phase(phase), keys), drained=drained_epoch == self._epoch - 1)

    async def save(self, trial: Trial) -> None:
        await self._replace(trial, drained_epoch=0)

    async def drained(self) -> None:
        await self._replace(Trial(), drained_epoch=self._epoch)

    async def _replace(self, trial: Trial, *, drained_epoch: int) -> None:
        threads = json.dumps([[key.tenant, key.thread] for key in trial.threads])
        values = (int(trial.phase), threads, drained_epoch)
        await self._changes.apply(0, Write(_REPLACE, (*values, checksums.of_row(*values))))
