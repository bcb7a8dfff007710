"""docs/coverage.md says what stands here for each field of three other APIs; here, that it is true."""

import importlib
import pkgutil
import re
from pathlib import Path

import pytest
from google.protobuf import descriptor_pool

import treadle.v1

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "coverage.md").read_text("utf-8")
TO_COME = "**to come**"
_TEST = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")
_NAME = re.compile(r"`([A-Z]\w+(?:\.\w+)+)`")
_ROW = re.compile(r"^\| (?!Theirs \|)([^|]+) \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)
ROWS = [(theirs, here, held) for theirs, here, held in _ROW.findall(PAGE)]
KEPT = [row for row in ROWS if TO_COME not in row[2]]
TESTS = sorted({found for _, _, held in KEPT for found in _TEST.findall(held)})
NAMES = sorted({name for _, here, _ in KEPT for name in _NAME.findall(here)})


def known(name: str) -> bool:
    """A field `Thread.agent`, a value `Thread.State.PENDING` or an RPC `ThreadService.GetThread` is there."""
    pool = descriptor_pool.Default()
    for module in pkgutil.iter_modules(treadle.v1.__path__):
        if module.name.endswith("_pb2"):
            importlib.import_module(f"treadle.v1.{module.name}")
    owner, _, part = f"treadle.v1.{name}".rpartition(".")
    finders = (
        lambda: pool.FindFieldByName(f"{owner}.{part}"),
        lambda: pool.FindEnumTypeByName(owner).values_by_name[part],
        lambda: pool.FindMethodByName(f"{owner}.{part}"),
    )
    return any(map(_found, finders))


def _found(finder: object) -> bool:
    assert callable(finder)
    try:
        finder()
    except KeyError:
        return False
    return True


def collected(session: pytest.Session) -> set[tuple[str, str]]:
    """File and function of every test of this run."""
    found = set()
    for item in session.items:
        function = getattr(item, "originalname", None) or item.name
        found.add((item.path.relative_to(ROOT).as_posix(), str(function)))
    return found


def is_whole(config: pytest.Config) -> bool:
    """The run is of all tests and not of some."""
    everything = config.args_source is not pytest.Config.ArgsSource.ARGS
    return everything and not config.option.keyword and not config.option.lf


def test_the_page_is_read() -> None:
    lines = [line for line in PAGE.splitlines() if line.startswith("| ") and "| Theirs |" not in line]

    assert len(ROWS) == len(lines) > 100


@pytest.mark.parametrize("row", ROWS, ids=[f"{number}: {row[0]}" for number, row in enumerate(ROWS, 1)])
def test_a_line_names_its_tests_or_is_to_come(row: tuple[str, str, str]) -> None:
    _, _, held = row

    if TO_COME in held:
        assert held == TO_COME
    else:
        assert all(_TEST.fullmatch(test) for test in held.split(", "))


@pytest.mark.parametrize(("file", "name"), TESTS)
def test_a_test_that_the_page_names_is_there(file: str, name: str) -> None:
    source = ROOT / file

    assert source.is_file()
    if name:
        assert re.search(rf"^(async )?def {name}\(", source.read_text("utf-8"), re.MULTILINE)


def test_a_whole_run_has_collected_every_test_that_the_page_names(request: pytest.FixtureRequest) -> None:
    """A run of some tests looks at those of the files that it collected."""
    found = collected(request.session)
    files = {file for file, _ in found}
    named = TESTS if is_whole(request.config) else [test for test in TESTS if test[0] in files]
    some = bool(request.config.option.keyword)  # and so not all of a file

    missing = [test for test in named if test not in found and (test[1] or test[0] not in files) and not some]

    assert missing == []


@pytest.mark.parametrize("name", NAMES)
def test_what_the_page_names_is_in_the_api(name: str) -> None:
    assert known(name)


@pytest.mark.parametrize("name", ["Thread.nothing", "Thread.State.SLEEPING", "ErrorReason.NONE", "No.thing"])
def test_what_is_not_in_the_api_is_noticed(name: str) -> None:
    assert not known(name)


def test_no_line_stands_twice() -> None:
    assert sorted({row[:2] for row in ROWS}) == sorted(row[:2] for row in ROWS)
