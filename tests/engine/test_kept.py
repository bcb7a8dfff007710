"""What is kept for another time, within bounds."""

from treadle_server.engine.kept import Kept


def test_who_was_not_asked_for_longest_gives_way_to_one_too_many() -> None:
    kept = Kept[str, int](2, 100)
    kept.put("a", 1, 1)
    kept.put("b", 2, 1)
    kept.get("a")

    kept.put("c", 3, 1)

    assert (kept.get("a"), kept.get("b"), kept.get("c")) == (1, None, 3)


def test_few_large_values_fill_the_room_as_many_small_ones_do() -> None:
    kept = Kept[str, int](1_000, 10)
    for key in ("a", "b", "c", "d"):
        kept.put(key, ord(key), 4)

    assert len(kept) == 2
    assert (kept.get("a"), kept.get("b"), kept.get("d")) == (None, None, ord("d"))


def test_what_is_larger_than_the_room_is_given_back_and_not_kept() -> None:
    kept = Kept[str, int](10, 10)
    kept.put("a", 1, 4)

    assert kept.put("b", 2, 11) == 2

    assert (kept.get("a"), kept.get("b")) == (1, None)


def test_a_value_that_is_put_again_takes_its_room_once() -> None:
    kept = Kept[str, int](10, 10)
    for size in (4, 6, 6):
        kept.put("a", size, size)
    kept.put("b", 4, 4)

    assert (kept.get("a"), kept.get("b")) == (6, 4)
