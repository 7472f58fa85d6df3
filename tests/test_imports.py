"""Imports go one way: a folder of the package imports only what stands before it."""

import ast
from pathlib import Path

from conftest import ROOT

BASE = (
    "errors",
    "printing",
    "signals",
    "randomness",
    "classes",
    "recipe",
    "backend",
    "command_line",
    "progress",
)
ORDER = ("preprocessing", "io", "dataset", "nn", "run", "plotting", "evaluation", "callbacks")
LEVELS = dict.fromkeys(BASE, 0) | {folder: level for level, folder in enumerate(ORDER, start=1)}


def imported_modules(file: Path) -> set[str]:
    """Return the modules of this project that ``file`` imports, also within functions."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom):
            inside = node.module == "pipeline"
            names |= {f"pipeline.{a.name}" for a in node.names} if inside else {node.module or ""}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return {name for name in names if name.partition(".")[0] in ("pipeline", "config")}


def test_imports_go_one_way() -> None:
    for file in (ROOT / "pipeline").glob("*/*.py"):
        for name in imported_modules(file):
            package, _, rest = name.partition(".")
            assert package == "pipeline", f"{file} imports {name}"
            place, other = file.parent.name, rest.partition(".")[0]
            assert place == other or LEVELS[other] < LEVELS[place], f"{file} imports {name}"


def test_modules_of_no_folder_import_only_one_another() -> None:
    for file in (ROOT / "pipeline").glob("*.py"):
        assert imported_modules(file) <= {f"pipeline.{name}" for name in BASE}


def test_config_imports_the_recipe_alone() -> None:
    for file in (ROOT / "config").rglob("*.py"):
        assert imported_modules(file) <= {"config", "pipeline.recipe"}
