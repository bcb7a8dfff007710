"""Rows of memories and of their totals, as they are verified wherever they are read."""

from treadle_server.core.memory import memory_name
from treadle_server.ports.catalogue.memories import MemoryRow
from treadle_server.stores.refusals import record_corrupt
from treadle_server.stores.sqlite import checksums
from treadle_server.stores.sqlite.readers import Row

COLUMNS = "memory, tenant, namespace, key, text, thread, revision, create_time, update_time, words, checksum"
TOTAL_COLUMNS = "tenant, namespace, item_count, text_bytes, check_sum"
_TOTALS = {"tenant": 3, "item_count": 5, "text_bytes": 7}


def memory_of(row: Row) -> MemoryRow:
    """Raises Refused(RECORD_CORRUPT) unless it is as it was written."""
    *values, words, checksum = row
    memory = MemoryRow(*values)
    if checksum_of(memory, words) != checksum:
        name = name_of(memory)
        raise record_corrupt(name, resource=name)
    return memory


def total_of(row: Row | None) -> tuple[int, int]:
    """How many memories and how many bytes of text. Raises Refused(RECORD_CORRUPT) for a damaged row."""
    if row is None:
        return 0, 0
    tenant, namespace, items, text_bytes, check_sum = row
    if checksums.sum_of(_TOTALS, (tenant, items, text_bytes)) != check_sum:
        name = f"memories/{namespace or '-'}"
        raise record_corrupt(f"the total of {name}", resource=name)
    return items, text_bytes


def name_of(row: MemoryRow) -> str:
    return memory_name(row.namespace, row.item_key)


def checksum_of(row: MemoryRow, words: str) -> int:
    return checksums.of_row(
        *(row.tenant, row.namespace, row.item_key, row.text, row.thread, row.revision),
        *(row.create_time, row.update_time, words),
    )
