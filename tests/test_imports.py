"""The plan of the house, held by its imports."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import musictool

ROOT = Path(musictool.__file__).parent
ROOMS = [
    "cli",
    "commands",
    "training",
    "inference",
    "models",
    "metrics",
    "checkpoints",
    "symbolic",
    "audio",
    "stream",
    "core",
]  # from the top
WITHOUT_TORCH = ["errors", "config", "findings", "stream", "symbolic", "cli", "commands"]


def modules() -> dict[str, Path]:
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = ("musictool", *path.relative_to(ROOT).with_suffix("").parts)
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path, *, everywhere: bool) -> set[str]:
    """The names that a file imports; at its top level only, or inside functions too."""
    tree = ast.parse(path.read_text())
    names: set[str] = set()

    def visit(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                names.update(alias.name for alias in child.names)
            elif isinstance(child, ast.ImportFrom) and child.module:
                names.add(child.module)
                names.update(f"{child.module}.{alias.name}" for alias in child.names)
            elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
                continue
            elif everywhere or not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                visit(child)

    visit(tree)
    return names


def test_imports_have_no_circle():
    known = modules()
    graph = {
        name: (imports(path, everywhere=False) & known.keys()) - {name, "musictool"} for name, path in known.items()
    }
    list(TopologicalSorter(graph).static_order())  # raises CycleError, which names the circle


def test_imports_run_downward_only():
    known = modules()
    wrong = []
    for name, path in known.items():
        room = name.split(".")[1] if "." in name else ""
        if room not in ROOMS[2:]:
            continue
        above = ROOMS[: ROOMS.index(room)]
        for other in imports(path, everywhere=True):
            if other.startswith("musictool.") and other.split(".")[1] in above:
                wrong.append(f"{name} imports {other}")
    assert not wrong


@pytest.mark.parametrize("room", WITHOUT_TORCH)
def test_no_torch_in(room):
    for name, path in modules().items():
        if name.split(".")[1:2] == [room]:
            top = imports(path, everywhere=room != "commands")
            assert not {i.split(".")[0] for i in top} & {"torch", "torchaudio"}, name


def test_symbolic_half_runs_without_torch():
    names = [name for name in modules() if name.split(".")[1:2] and name.split(".")[1] in WITHOUT_TORCH]
    code = f"import sys\nfor name in {names!r}: __import__(name)\nassert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
