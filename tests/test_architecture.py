"""The layers of docs/architecture.md hold: all imports in src/tseg, also those inside functions, run downwards."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src"
LAYERS = [
    {"__main__"},
    {"cli"},
    {"tseg"},  # the package itself, src/tseg/__init__.py
    {"segmenting"},
    {"reporting"},
    {"inference", "evaluation", "training", "fetching"},
    {"encoding"},
    {"datasets"},
    {"settings"},
    {"model"},
    {"records", "images", "transforms", "expressions", "tracking"},
    {"parts", "lineage"},
    {"files", "locks", "progress", "provenance", "source", "threads"},
]
"""The layers, topmost first; each name is a folder or a file of src/tseg."""


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_name(path): path for path in sorted(SOURCE.rglob("*.py"))}


def imports_of(module: str) -> set[str]:
    """Every module that `module` imports, at the top or inside a function; the package itself for a name it defines."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module and not node.level, f"{module}, line {node.lineno}: name the module in full"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else node.module for name in names}
    return found


def room_of(module: str) -> str:
    return module.removeprefix("tseg.").partition(".")[0]


def level_of(room: str) -> int:
    return next(level for level, rooms in enumerate(LAYERS) if room in rooms)


def test_every_room_has_a_layer() -> None:
    assert {room_of(module) for module in MODULES} == set().union(*LAYERS)


@pytest.mark.parametrize("module", MODULES)
def test_no_import_runs_upwards_or_sideways(module: str) -> None:
    room = room_of(module)
    wrong = {
        other
        for other in imports_of(module) & MODULES.keys()
        if room_of(other) != room and level_of(room_of(other)) <= level_of(room)
    }
    assert not wrong


def test_no_imports_run_in_a_circle() -> None:
    graph = {module: imports_of(module) & MODULES.keys() for module in MODULES}
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the modules


@pytest.mark.parametrize(("library", "allowed"), [("snakemake", set()), ("mlflow", {"tseg.tracking"})])
def test_a_library_is_imported_only_where_it_may_be(library: str, allowed: set[str]) -> None:
    for module in MODULES.keys() - allowed:
        assert not [name for name in imports_of(module) if name.partition(".")[0] == library], module


def test_no_function_of_the_library_is_called_like_a_command() -> None:
    commands = {path.stem for path in (SOURCE / "tseg/cli").glob("*.py")}
    for module, path in MODULES.items():
        if room_of(module) != "cli":
            functions = {node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)}
            assert not functions & commands, module


def test_no_two_classes_share_a_name() -> None:
    classes = [
        node.name
        for path in MODULES.values()
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef)
    ]
    assert len(classes) == len(set(classes))
