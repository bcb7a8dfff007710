"""Who is on trial survives the server; a damaged record accuses nobody."""

from pathlib import Path

from tests.stores.kit import Opens, execute
from treadle_server.ports.log import ThreadKey
from treadle_server.ports.trials import LastLife, Phase, Trial

KEYS = (ThreadKey(1, 7), ThreadKey(2, 9))


async def test_a_new_file_accuses_nobody(opens: Opens, path: Path) -> None:
    opened = await opens(path)

    assert await opened.store.trials.last_life() == LastLife(Trial(), drained=False)
    await opened.store.close()


async def test_the_last_trial_is_found_by_the_next_server(opens: Opens, path: Path) -> None:
    opened = await opens(path)
    await opened.store.trials.save(Trial(Phase.ALONE, KEYS[:1]))
    await opened.store.trials.save(Trial(Phase.AMONG_OTHERS, KEYS))
    await opened.store.close()

    again = await opens(path)
    assert await again.store.trials.last_life() == LastLife(Trial(Phase.AMONG_OTHERS, KEYS), drained=False)
    await again.store.close()


async def test_a_drain_is_known_to_the_next_server_and_to_no_later_one(opens: Opens, path: Path) -> None:
    lives = []
    for number in range(3):
        opened = await opens(path)
        lives.append(await opened.store.trials.last_life())
        if number == 0:
            await opened.store.trials.save(Trial(Phase.AGAIN, KEYS[:1]))
            await opened.store.trials.drained()
        await opened.store.close()

    assert [life.drained for life in lives] == [False, True, False]
    assert {life.trial for life in lives} == {Trial()}


async def test_a_damaged_record_accuses_nobody(opens: Opens, path: Path) -> None:
    opened = await opens(path)
    await opened.store.trials.save(Trial(Phase.ALONE, KEYS[:1]))
    await opened.store.close()
    execute(path, "UPDATE trials SET threads = '[[1, 8]]'")

    again = await opens(path)
    assert await again.store.trials.last_life() == LastLife(Trial(), drained=False)
    await again.store.close()
