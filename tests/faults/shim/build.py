"""Compiles the libraries of this folder, for tests that need a disk or a clock of their own."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SOURCES = Path(__file__).parent
_OPTIONS = ("-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC")


def compile_libraries(folder: Path) -> Path:
    """Makes `storage.so` and `clock.so` in the folder and returns it.

    Skips the test where that is not possible, which is a failure under CI=true.
    """
    compiler = shutil.which("cc")
    if compiler is None or not sys.platform.startswith("linux"):
        why = "NOT TESTED: storage faults, power loss and clocks need Linux and a C compiler called cc"
        if os.environ.get("CI") == "true":
            pytest.fail(why, pytrace=False)
        pytest.skip(why)
    for name in ("storage", "clock"):
        source, library = SOURCES / f"{name}.c", folder / f"{name}.so"
        command = [compiler, *_OPTIONS, "-o", str(library), str(source), "-ldl", "-lpthread"]
        subprocess.run(command, check=True)
    return folder
