"""Calls of AdminService about backups."""

from __future__ import annotations

import math

from treadle.calls.call import Unary, request_id_or_new
from treadle.v1 import admin_service_pb2 as rpc
from treadle.v1.backup_pb2 import Backup


def create_backup(
    backup_id: str = "", *, request_id: str = "", timeout: float | None = None
) -> Unary[Backup]:
    """Copies the whole store into a file on the server's machine, and answers when that is durable.

    Waits as long as it takes if no `timeout` in seconds is given. A caller who leaves does not end the copy:
    the same call with the same request_id finds it.
    """
    request = rpc.CreateBackupRequest(backup_id=backup_id, request_id=request_id_or_new(request_id))
    return Unary(request, Backup, math.inf if timeout is None else timeout, lasting=True)
