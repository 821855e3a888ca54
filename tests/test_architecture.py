"""Who may import whom (docs/architecture.md), read from the sources and seen in fresh interpreters."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "otel_memory"

ALLOWED: dict[str, frozenset[str]] = {
    # The public face hands out the probe's names, lazily.
    "__init__": frozenset({"probe", "version"}),
    # The one place that maps a command to its room; it loads a room by name when its verb is called.
    "__main__": frozenset({"version"}),
    "names": frozenset(),
    "version": frozenset(),
    # How numbers are worded for people, the same wherever they are shown.
    "humanize": frozenset(),
    "probe": frozenset({"names", "version"}),
    # The one mend of the client library that both sides of the log need.
    "kafka_sockets": frozenset(),
    "exporters": frozenset({"names", "version", "kafka_sockets"}),
    "analyzer": frozenset({"names", "version", "humanize", "kafka_sockets"}),
    "clients": frozenset({"version", "humanize"}),
    "demo": frozenset({"version", "humanize"}),
    # Checks an application's environment with the probe's own settings and sources, so that both see the same.
    "doctor": frozenset({"names", "version", "humanize", "probe"}),
}
"""For each room (a folder or a module of the package) the rooms that it may import besides itself."""

PURE = (
    *(
        "thresholds",
        "rules",
        "scoring",
        "forecast",
        "attribution",
        "attribution_fit",
        "alerting",
        "alert_texts",
        "matching",
        "roles",
    ),
    *("envelope", "lives", "cycles", "shapes", "evidence", "weights", "scoring_reasons", "material"),
)
"""Modules (or folders) that judge: numbers in, decisions out."""

WORLD = frozenset(
    {"asyncio", "datetime", "http", "io", "logging", "multiprocessing", "os", "pathlib", "random", "shutil", "socket"}
    | {"sqlite3", "subprocess", "sys", "tempfile", "threading", "time", "urllib", "psutil", "grpc", "httpx", "fastapi"}
)
"""What a judge has no business with: clocks, files, processes, threads, networks, chance."""

TOO_LONG = 450
"""Lines of code, docstrings, comments and blank lines not counted. A file that reaches it has a second subject."""

TABLES = ("otel_memory.names",)
"""Nothing but a table: as long as what it lists."""


def sources() -> list[Path]:
    return sorted((ROOT / PACKAGE).rglob("*.py"))


def dotted(path: Path) -> str:
    """``otel_memory.probe.config`` for its file; a package goes by its folder."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str) -> str:
    """The room of ``otel_memory.<room>…``; the package itself is ``__init__``."""
    return module.split(".")[1] if "." in module else "__init__"


def imports(path: Path, tree: ast.AST | None = None) -> Iterator[tuple[int, str]]:
    """Line and absolute module of each import, wherever it stands: at the top, in a function, under TYPE_CHECKING.

    ``importlib.import_module("literal")`` counts too. Of ``from otel_memory import x`` the module is
    ``otel_memory.x`` where such a module exists.
    """
    tree = tree or ast.parse(path.read_text())
    package = dotted(path) if path.name == "__init__.py" else dotted(path).rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                anchor = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*anchor, *filter(None, [node.module])])
            for alias in node.names:
                inner = ROOT.joinpath(*base.split("."), alias.name)
                is_module = base.startswith(PACKAGE) and (inner.is_dir() or inner.with_suffix(".py").is_file())
                yield node.lineno, f"{base}.{alias.name}" if is_module else base
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute | ast.Name)
            and getattr(node.func, "attr", getattr(node.func, "id", "")) in ("import_module", "__import__")
            and node.args
            and isinstance(node.args[0], ast.Constant)
        ):
            yield node.lineno, str(node.args[0].value)


def at_import_time(tree: ast.Module) -> ast.Module:
    """The tree without function bodies and without ``if TYPE_CHECKING``: what runs when the module is imported."""

    class Prune(ast.NodeTransformer):
        def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
            return None

        def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
            return None

        def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:
            if "TYPE_CHECKING" in ast.unparse(node.test):
                return [statement for statement in node.orelse if self.visit(statement)]
            return self.generic_visit(node)

    pruned: ast.Module = Prune().visit(tree)
    return pruned


def ours(path: Path, tree: ast.AST | None = None) -> Iterator[tuple[int, str]]:
    """The imports of our own modules."""
    return ((line, name) for line, name in imports(path, tree) if name.split(".")[0] == PACKAGE)


def where(path: Path, line: int) -> str:
    return f"{path.relative_to(ROOT)}:{line}"


def test_every_room_has_a_rule() -> None:
    rooms = {room_of(dotted(path)) for path in sources()}
    assert rooms <= ALLOWED.keys(), "a new room needs its row here and in docs/architecture.md"


def test_rooms_import_only_whom_the_table_allows() -> None:
    wrong = [
        f"{where(path, line)}: {room_of(dotted(path))} imports {name}"
        for path in sources()
        for line, name in ours(path)
        if room_of(name) not in {room_of(dotted(path)), "__init__"} | ALLOWED[room_of(dotted(path))]
    ]
    assert not wrong, "\n".join(wrong)


def test_no_room_imports_the_public_face() -> None:
    """The face imports the probe; whoever imports the face imports the probe with it."""
    wrong = [
        where(path, line)
        for path in sources()
        for line, name in ours(path)
        if name == PACKAGE and room_of(dotted(path)) != "__init__"
    ]
    assert not wrong, "import the module that owns the name: " + ", ".join(wrong)


def test_modules_import_one_another_without_circles() -> None:
    """Counted is what runs at import time."""
    files = {dotted(path): path for path in sources()}
    graph: dict[str, set[str]] = {}
    for module, path in files.items():
        tree = at_import_time(ast.parse(path.read_text()))
        graph[module] = {name for _, name in ours(path, tree) if name in files and name != module}

    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, "a circle of imports: " + " -> ".join([*trail[trail.index(module) :], module])
        if module not in done:
            for name in sorted(graph[module]):
                visit(name, (*trail, module))
            done.add(module)

    for module in graph:
        visit(module, ())


def test_judges_know_no_clock_no_file_no_thread_and_no_network() -> None:
    judges = [path for path in sources() if path.stem in PURE or path.parent.name in PURE]
    wrong = [
        f"{where(path, line)}: {name}"
        for path in judges
        for line, name in imports(path)
        if name.split(".")[0] in WORLD or name.startswith("opentelemetry.")
    ]
    assert not wrong, "a judge gets these as arguments: " + ", ".join(wrong)


def test_the_probe_loads_no_sdk_and_no_numpy_at_import() -> None:
    """Inside a function it may look for the SDK, which the application may lack."""
    wrong = [
        f"{where(path, line)}: {name}"
        for path in sources()
        if room_of(dotted(path)) == "probe"
        for line, name in imports(path, at_import_time(ast.parse(path.read_text())))
        if name.startswith(("opentelemetry.sdk", "opentelemetry.exporter", "numpy", "fastapi", "starlette", "grpc"))
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("path", sources(), ids=dotted)
def test_a_module_says_what_it_owns(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text()))
    assert docstring, f"{path.relative_to(ROOT)} has no docstring"


@pytest.mark.parametrize("path", [path for path in sources() if dotted(path) not in TABLES], ids=dotted)
def test_a_module_has_one_subject(path: Path) -> None:
    tree = ast.parse(path.read_text())
    prose = {
        line
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    lines = enumerate(path.read_text().splitlines(), start=1)
    code = sum(1 for number, line in lines if line.strip() and line.strip()[0] != "#" and number not in prose)
    assert code <= TOO_LONG, f"{path.relative_to(ROOT)} has {code} lines of code: split it by subject"


def loaded_by(statement: str) -> frozenset[str]:
    """Names of all modules that a fresh interpreter has loaded after ``statement`` and had not before."""
    script = f"import sys, json; old = set(sys.modules); {statement}; print(json.dumps(sorted(set(sys.modules) - old)))"
    argv = [sys.executable, "-W", "ignore", "-c", script]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT)
    assert done.returncode == 0, f"{statement}:\n{done.stderr}"
    return frozenset(json.loads(done.stdout.splitlines()[-1]))


def foreign(modules: frozenset[str], *prefixes: str) -> list[str]:
    """Those of ``modules`` that are one of ``prefixes`` or lie below one."""
    return sorted(name for name in modules if name.startswith(tuple(f"{p}." for p in prefixes)) or name in prefixes)


def test_importing_the_package_loads_nothing_but_itself() -> None:
    loaded = {name for name in loaded_by("import otel_memory") if name.split(".")[0] not in sys.stdlib_module_names}
    assert loaded <= {"otel_memory", "otel_memory.version"}


def test_importing_the_instrumentor_loads_nothing_heavy_and_nothing_of_the_analyzer() -> None:
    instrumentor = ROOT / PACKAGE / "probe" / "instrumentor.py"
    assert instrumentor.is_file(), "pyproject.toml names it as an entry point"
    loaded = loaded_by("import otel_memory.probe.instrumentor")
    heavy = foreign(loaded, "numpy", "opentelemetry.sdk", "opentelemetry.exporter", "fastapi", "starlette", "grpc")
    assert heavy == []
    assert (
        foreign(loaded, *(f"{PACKAGE}.{room}" for room in ALLOWED if room not in ("probe", "names", "version"))) == []
    )


@pytest.mark.parametrize("room", sorted({room_of(dotted(path)) for path in sources()} - {"__init__", "__main__"}))
def test_importing_all_of_a_room_loads_nothing_of_the_others(room: str) -> None:
    """But for those that its row of the table names."""
    modules = [dotted(path) for path in sources() if room_of(dotted(path)) == room]
    loaded = loaded_by("import " + ", ".join(modules))
    others = ALLOWED.keys() - ALLOWED[room] - {room, "__init__", "version"}
    assert foreign(loaded, *(f"{PACKAGE}.{other}" for other in others)) == []


def test_the_checks_see_what_they_look_for() -> None:
    """The reader finds each form of an import, and the filter for import time leaves out only what does not run."""
    source = """
import numpy
from otel_memory import names
from otel_memory.analyzer.model import Point
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    import fastapi
try:
    import grpc
except ImportError:
    pass
def late():
    import opentelemetry.sdk
    importlib.import_module("otel_memory.probe")
"""
    path = ROOT / PACKAGE / "example.py"
    everything = [name for _, name in imports(path, ast.parse(source))]
    early = [name for _, name in imports(path, at_import_time(ast.parse(source)))]
    always = ["numpy", "otel_memory.names", "otel_memory.analyzer.model", "typing", "grpc"]
    assert sorted(everything) == sorted([*always, "fastapi", "opentelemetry.sdk", "otel_memory.probe"])
    assert sorted(early) == sorted(always)
