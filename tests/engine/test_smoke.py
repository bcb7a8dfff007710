from tests.engine.house import House, left_over, say, use
from treadle_server.core.kinds import ThreadState


async def test_smoke(house: House) -> None:
    house.bench.add("look")
    key = await house.run(use("look"), use("look", "look"), say("fine"))
    assert (await house.row(key)).state == ThreadState.COMPLETED
    events = await house.check_ended(key)
    for e in events: print(e)
    assert left_over(house.engine) == {}
    assert left_over(house.journal) == {}
    assert left_over(house.feed) == {}
