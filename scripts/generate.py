"""Generates the Python stubs of `protos/` with the installed protoc and plugins; `--check` only compares."""

import argparse
import filecmp
import importlib.util
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROTOS = ROOT / "protos"
THIRD_PARTY = ROOT / "third_party"
BORROWED = (
    "google/api/field_behavior.proto",
    "google/api/resource.proto",
    "google/rpc/code.proto",
    "google/rpc/error_details.proto",
    "google/rpc/status.proto",
)
# Folder below `protos` and below the generated tree -> folder that holds the committed stubs.
HOMES = {
    "treadle/v1": ROOT / "clients/python/treadle/v1",
    "treadle_server/record/v1": ROOT / "server/treadle_server/record/v1",
}
STUBS = ("*_pb2.py", "*_pb2.pyi", "*_pb2_grpc.py", "*_pb2_grpc.pyi")


def borrow() -> None:
    """Copies what our protos import, so that protoc and buf see the files of the installed package."""
    spec = importlib.util.find_spec("google.api")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("googleapis-common-protos is not installed")
    site = Path(spec.submodule_search_locations[0]).parents[1]
    for name in BORROWED:
        target = THIRD_PARTY / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(site / name, target)


def protoc(out: Path, outputs: tuple[str, ...], files: list[Path]) -> None:
    """Runs protoc once; raises SystemExit with its own words when it fails."""
    tools = Path(sys.executable).parent
    command = [
        sys.executable,
        "-m",
        "grpc_tools.protoc",
        f"-I{PROTOS}",
        f"-I{THIRD_PARTY}",
        f"--plugin=protoc-gen-mypy={tools / 'protoc-gen-mypy'}",
        f"--plugin=protoc-gen-mypy_grpc={tools / 'protoc-gen-mypy_grpc'}",
        *(f"--{output}_out={'quiet:' if output.startswith('mypy') else ''}{out}" for output in outputs),
        *(str(file.relative_to(PROTOS)) for file in files),
    ]
    if subprocess.run(command, check=False, cwd=PROTOS).returncode:
        raise SystemExit("protoc failed")


def generate(out: Path) -> None:
    """Fills `out` with the stubs of every proto, below its proto path."""
    files = sorted(file for home in HOMES for file in (PROTOS / home).glob("*.proto"))
    protoc(out, ("python", "mypy"), files)
    protoc(out, ("grpc_python", "mypy_grpc"), [file for file in files if file.stem.endswith("_service")])


def stubs(folder: Path) -> set[str]:
    return {file.name for pattern in STUBS for file in folder.glob(pattern)}


def differences(out: Path) -> list[str]:
    """Names each committed stub that is missing, left over or other than generated."""
    found = []
    for path, home in HOMES.items():
        fresh, kept = stubs(out / path), stubs(home)
        found += [f"missing: {home.relative_to(ROOT) / name}" for name in sorted(fresh - kept)]
        found += [f"left over: {home.relative_to(ROOT) / name}" for name in sorted(kept - fresh)]
        found += [
            f"differs: {home.relative_to(ROOT) / name}"
            for name in sorted(fresh & kept)
            if not filecmp.cmp(out / path / name, home / name, shallow=False)
        ]
    return found


def install(out: Path) -> None:
    """Replaces the committed stubs and drops those whose proto is gone."""
    for path, home in HOMES.items():
        home.mkdir(parents=True, exist_ok=True)
        for name in stubs(home) - stubs(out / path):
            (home / name).unlink()
        for name in stubs(out / path):
            shutil.copyfile(out / path / name, home / name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="only compare; fail when a committed stub is not up to date"
    )
    check = parser.parse_args().check
    borrow()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        generate(out)
        if not check:
            install(out)
            return
        if found := differences(out):
            raise SystemExit("\n".join([*found, "run: python scripts/generate.py"]))


if __name__ == "__main__":
    main()
