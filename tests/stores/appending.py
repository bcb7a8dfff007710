"""A process that appends until it is killed, and says what was acknowledged: `appending.py FILE`."""

import asyncio
import sys
from pathlib import Path

from tests.contract.units import creation, records, request
from tests.stores.kit import open_store
from treadle_server.ports.log import ThreadKey, Unit


async def main(path: Path) -> None:
    opened = await open_store(path)
    log = opened.store.log
    key = ThreadKey(1, log.allocate_thread())
    await log.submit(creation(key, "1")).wait()
    print(1, flush=True)
    for sequence in range(1, 8, 2):
        unit = Unit(
            key, sequence, records(str(sequence + 1), str(sequence + 2)), request=request(f"r{sequence}")
        )
        await log.submit(unit).wait()
        print(sequence + 2, flush=True)
    await opened.store.close()


asyncio.run(main(Path(sys.argv[1])))
