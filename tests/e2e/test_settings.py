"""What README says of settings is what the server takes."""

import re
from pathlib import Path

import pytest

from treadle_server.config import Config

_README = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
_ROW = re.compile(r"^\|[^|]*\| ([^|]*`TREADLE_[^|]*)\|([^|]*)\|", re.MULTILINE)


def _defaults() -> dict[str, str]:
    """What the table says of each variable that it has."""
    rows = _ROW.findall(_README)
    variables = re.compile(r"TREADLE_\w+")
    return {name: default.strip("` ") for names, default in rows for name in variables.findall(names)}


@pytest.mark.parametrize("field", Config.model_fields)
def test_every_setting_is_in_the_table_with_its_default(field: str) -> None:
    said = _defaults().get(f"TREADLE_{field.upper()}")

    default = Config.model_fields[field].default
    assert said is not None, "not in the table"
    if isinstance(default, bool | str | Path):
        assert said == str(default).lower()
    elif default is not None:
        assert float(said) == default


def test_the_table_names_no_setting_that_there_is_not() -> None:
    assert set(_defaults()) == {f"TREADLE_{field.upper()}" for field in Config.model_fields}
