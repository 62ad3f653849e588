"""Style that a reviewer should not have to look for: sizes, banned calls, docstrings, layers inside compiled code."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PYTHON = sorted((ROOT / "haptk").rglob("*.py"))
COMPILED = sorted((ROOT / "haptk" / "_fast").rglob("*.p[yx][xd]*"))
FUNCTION_LINES_MAX = 60
MODULE_LINES_WARN = 500
MODULE_LINES_MAX = 800
# Only haptk/io/clock.py reads a clock; cores get `now` and their random source from outside.
CLOCK = re.compile(r"\b(time\.(time|monotonic|perf_counter|sleep|time_ns|monotonic_ns)|datetime\.(now|utcnow|today))\(")
RANDOM = re.compile(r"\brandom\.(random|randint|choice|shuffle|uniform|randrange)\(")
PURE = ("core", "render", "cluster", "formats")


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


@pytest.mark.parametrize("path", PYTHON, ids=name_of)
def test_functions_fit_on_a_screen(path: Path) -> None:
    long = []
    for node in functions(path):
        lines = (node.end_lineno or 0) - node.lineno + 1
        if lines > FUNCTION_LINES_MAX:
            long.append(f"{node.name} at line {node.lineno}: {lines} lines")
    assert not long


@pytest.mark.parametrize("path", PYTHON + COMPILED, ids=name_of)
def test_modules_have_one_concern(path: Path) -> None:
    lines = path.read_text().count("\n")
    if lines > MODULE_LINES_WARN:
        warnings.warn(f"{name_of(path)} has {lines} lines", stacklevel=1)
    assert lines <= MODULE_LINES_MAX


@pytest.mark.parametrize("path", PYTHON, ids=name_of)
def test_modules_say_what_belongs_in_them(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text())), "a module opens with what belongs in it"


@pytest.mark.parametrize("path", PYTHON, ids=name_of)
def test_only_one_module_reads_a_clock(path: Path) -> None:
    if path == ROOT / "haptk" / "io" / "clock.py":
        return
    code = "\n".join(line.split("#")[0] for line in path.read_text().splitlines())
    assert not CLOCK.search(code)
    if path.relative_to(ROOT / "haptk").parts[0] in PURE:
        assert not RANDOM.search(code)
        assert not re.search(r"^\s*(import|from) (socket|subprocess|select|selectors|threading|time)\b", code, re.M)
        assert "os.environ" not in code


@pytest.mark.parametrize("path", COMPILED, ids=name_of)
def test_compiled_code_keeps_the_layers(path: Path) -> None:
    """import-linter does not see inside .pyx: the data plane imports nothing of the shells above it."""
    assert not re.search(r"haptk\.(cli|lab|eip|heartbeat|aws|report)\b", path.read_text())


def test_no_layer_is_reached_by_a_string() -> None:
    """importlib with a name built at run time would hide an import from the linter; only the lazy table does it, and a
    process that imports its own package before it gives its privileges up."""
    users = [name_of(path) for path in PYTHON if "importlib.import_module" in path.read_text()]
    assert users == ["haptk/cli/base.py", "haptk/proxy/preload.py"]


def test_every_public_function_of_the_cores_has_a_docstring() -> None:
    missing = []
    for path in PYTHON:
        if path.relative_to(ROOT / "haptk").parts[0] not in PURE:
            continue
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_") and not ast.get_docstring(node):
                missing.append(f"{name_of(path)}: {node.name}")
    assert not missing
