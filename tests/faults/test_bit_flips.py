"""One flipped bit, anywhere in the file or in the log beside it: never another answer than before."""

import random
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from tests.faults.stored_world import Answers, World, ask_everything, make
from treadle_server.core.errors import Refused
from treadle_server.stores.sqlite.lock import FileUnusable

SEED = 20_251_122
COUNTS = [40, pytest.param(1000, marks=pytest.mark.soak)]
_NEAR = 8
_LOSS = grpc.StatusCode.DATA_LOSS


@dataclass(slots=True)
class Sound:
    """A world as its files were left, and what they answered."""

    files: dict[str, bytes]
    """By what follows the name of the file."""
    world: World
    answers: Answers

    def damaged(self, folder: Path, suffix: str, bit: int) -> Path:
        """A copy with one bit of one file flipped."""
        folder.mkdir()
        for ending, data in self.files.items():
            changed = bytearray(data)
            if ending == suffix:
                changed[bit // 8] ^= 1 << (bit % 8)
            (folder / f"t.db{ending}").write_bytes(changed)
        return folder / "t.db"


async def _sound(folder: Path, *, killed: bool) -> Sound:
    whole, left = folder / "whole.db", folder / "killed.db"
    world = await make(whole, left)
    source = left if killed else whole
    endings = ("", "-wal", "-lock") if killed else ("",)
    sound = Sound(_read(source, endings), world, {})
    sound.answers = await ask_everything(sound.damaged(folder / "asked", "none", 0), world)
    return sound


def _read(source: Path, endings: tuple[str, ...]) -> dict[str, bytes]:
    return {ending: Path(f"{source}{ending}").read_bytes() for ending in endings}


async def _outcome(sound: Sound, path: Path) -> tuple[str, list[str]]:
    """What kind of thing became of a damaged file, and every wrong answer."""
    try:
        answers = await ask_everything(path, sound.world)
    except (FileUnusable, Refused):
        return "not served", []
    known = {*sound.world.threads, *sound.world.unfinished}
    wrong = [line for question in sound.answers for line in _wrong(question, sound.answers, answers, known)]
    return ("the same" if answers == sound.answers else "told"), wrong


def _wrong(question: str, before: Answers, after: Answers, known: set[str]) -> Iterator[str]:
    wanted, found = before[question], after[question]
    if found in (wanted, _LOSS):
        return
    if isinstance(found, list) and question.startswith(("list", "ordered")) and isinstance(wanted, list):
        lost = {name for name, thread in found if thread is None}
        left = [entry for entry in found if entry[1] is not None]
        if left == [entry for entry in wanted if entry[0] not in lost] and lost <= known:
            return
    yield f"{question}: {found!r} instead of {wanted!r}"[:600]


def _used(data: bytes) -> list[int]:
    """Bytes that something stands in or near: most of a page is empty, and nobody reads that."""
    near = [data[max(0, place - _NEAR) : place + _NEAR] for place in range(len(data))]
    return [place for place, around in enumerate(near) if any(around)]


async def _flip(sound: Sound, folder: Path, suffix: str, count: int) -> Counter[str]:
    rng = random.Random(SEED)
    outcomes: Counter[str] = Counter()
    all_wrong: list[str] = []
    used = _used(sound.files[suffix])
    for number in range(count):
        bit = 8 * rng.choice(used) + rng.randrange(8)
        place = folder / str(number)
        outcome, wrong = await _outcome(sound, sound.damaged(place, suffix, bit))
        shutil.rmtree(place)
        outcomes[outcome] += 1
        all_wrong += [f"bit {bit} of t.db{suffix}: {line}" for line in wrong]
    print(f"{count} flips of t.db{suffix}: {dict(outcomes)}")
    assert not all_wrong, "\n".join(all_wrong)
    return outcomes


@pytest.mark.timeout(900)
@pytest.mark.parametrize("count", COUNTS)
async def test_a_flipped_bit_of_the_file_is_never_another_answer(tmp_path: Path, count: int) -> None:
    sound = await _sound(tmp_path, killed=False)

    outcomes = await _flip(sound, tmp_path, "", count)

    assert outcomes["told"]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("count", COUNTS)
async def test_a_flipped_bit_of_the_log_is_never_another_answer(tmp_path: Path, count: int) -> None:
    sound = await _sound(tmp_path, killed=True)

    outcomes = await _flip(sound, tmp_path, "-wal", count)

    assert outcomes["not served"]
