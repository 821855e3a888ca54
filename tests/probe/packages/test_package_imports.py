"""Import costs: nested imports add up, failures pass through untouched, nothing of the import system is changed."""

from __future__ import annotations

import importlib
import importlib._bootstrap as bootstrap
import importlib.resources
import importlib.util
import inspect
import os
import sys
import threading
import traceback
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from otel_memory.probe.packages import import_hook
from otel_memory.probe.packages.import_costs import MAX_PACKAGES, ImportTracker, track_imports
from otel_memory.probe.packages.import_hook import FREE, HOOK, Cost, ImportCost

Write = Callable[[dict[str, str]], str]
MIB = 1024 * 1024
NESTED = {
    "__init__.py": "from PKG import a\nheld = bytearray(3_000_000)\n",
    "a.py": "import PKG.b\nheld = bytearray(5_000_000)\n",
    "b.py": "held = bytearray(7_000_000)\n",
}


@pytest.fixture(autouse=True)
def _unchanged() -> object:
    before = bootstrap._load_unlocked, bootstrap._exec
    yield
    assert not HOOK.listeners
    assert (bootstrap._load_unlocked, bootstrap._exec) == before


def test_own_costs_are_the_inclusive_ones_without_the_modules_within(write_package: Write) -> None:
    name = write_package(NESTED)
    with track_imports() as imports:
        importlib.import_module(name)
    top, a, b = (imports.module(each) for each in (name, f"{name}.a", f"{name}.b"))
    assert top
    assert a
    assert b
    assert (top.parent, a.parent, b.parent) == (None, name, f"{name}.a")
    for cost, mib in ((top, 3), (a, 5), (b, 7)):
        assert cost.own.heap_bytes is not None
        assert cost.own.heap_bytes == pytest.approx(mib * 1e6, abs=300_000)
        assert cost.inclusive.time_seconds >= cost.own.time_seconds > 0
    assert top.inclusive.heap_bytes == top.own.heap_bytes + a.own.heap_bytes + b.own.heap_bytes  # type: ignore[operator]
    package = imports.package(name)
    assert package
    assert (package.modules, package.failed) == (3, 0)
    # Its own modules nest, and count once.
    assert package.inclusive == top.inclusive
    assert package.own.heap_bytes == top.inclusive.heap_bytes
    assert imports.total().rss_bytes == sum(cost.own.rss_bytes or 0 for cost in imports.modules())


def test_a_module_that_is_loaded_already_costs_nothing(write_package: Write) -> None:
    name = write_package(NESTED)
    importlib.import_module(name)
    with track_imports() as imports:
        importlib.import_module(name)
    assert imports.modules() == []
    assert imports.total() == FREE


def test_an_import_that_raises_raises_the_same_with_the_same_traceback(write_package: Write) -> None:
    files = {"__init__.py": "import PKG.broken\n", "broken.py": "held = bytearray(10)\nraise KeyError('why')\n"}
    plain, tracked = write_package(files), write_package(files)

    def lines(name: str) -> list[str]:
        with pytest.raises(KeyError) as caught:
            importlib.import_module(name)
        assert caught.value.args == ("why",)
        assert caught.value.__context__ is None
        return [frame.filename.replace(name, "PKG") for frame in traceback.extract_tb(caught.value.__traceback__)]

    expected = lines(plain)
    with track_imports() as imports:
        found = lines(tracked)
    # import_module shows the import system's frames; one more of them, and no file of ours.
    assert [name for name in found if "frozen" not in name] == [name for name in expected if "frozen" not in name]
    assert not any("otel_memory" in name for name in found)
    assert tracked not in sys.modules
    broken = imports.module(f"{tracked}.broken")
    assert broken
    assert broken.error == "KeyError"
    package = imports.package(tracked)
    assert package
    assert package.failed == 2


def test_an_import_statement_that_fails_shows_no_frame_of_the_import_system(write_package: Write) -> None:
    name = write_package({"__init__.py": "import PKG.broken\n", "broken.py": "1 / 0\n"})
    with track_imports(), pytest.raises(ZeroDivisionError) as caught:
        exec(f"import {name}")
    files = [frame.filename for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert files[-2:] == [
        str(Path(sys.path[0]) / name / "__init__.py"),
        str(Path(sys.path[0]) / name / "broken.py"),
    ]
    assert not [name for name in files if "importlib" in name or "import_hook" in name]


def test_a_warning_of_a_module_still_names_who_imported_it(write_package: Write) -> None:
    source = "import warnings\nwarnings.warn('old', DeprecationWarning, stacklevel=2)\n"
    name = write_package({"__init__.py": "import PKG.old\n", "old.py": source})
    with track_imports(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        importlib.import_module(name)
    assert [Path(each.filename).name for each in caught] == ["__init__.py"]
    assert Path(caught[0].filename).parent.name == name


def test_loaders_specs_sources_and_resources_are_what_they_are(write_package: Write, tmp_path: Path) -> None:
    name = write_package({"__init__.py": "def f():\n    return 1\n", "data.txt": "hello"})
    archive = tmp_path / "zipped.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr(f"{name}_zipped.py", "VALUE = 3\n")
    sys.path.insert(0, str(archive))
    (tmp_path / f"{name}_namespace" / "part").mkdir(parents=True)
    (tmp_path / f"{name}_namespace" / "part" / "mod.py").write_text("VALUE = 4\n")
    try:
        with track_imports() as imports:
            module = importlib.import_module(name)
            zipped = importlib.import_module(f"{name}_zipped")
            namespaced = importlib.import_module(f"{name}_namespace.part.mod")
    finally:
        sys.path.remove(str(archive))
        sys.modules.pop(f"{name}_zipped", None)
    assert type(module.__spec__.loader).__name__ == "SourceFileLoader"  # type: ignore[union-attr]
    assert module.__loader__ is module.__spec__.loader  # type: ignore[union-attr]
    assert type(zipped.__spec__.loader).__name__ == "zipimporter"  # type: ignore[union-attr]
    assert (zipped.VALUE, namespaced.VALUE) == (3, 4)
    assert inspect.getsource(module.f) == "def f():\n    return 1\n"
    assert importlib.resources.files(name).joinpath("data.txt").read_text() == "hello"
    assert {f"{name}_namespace", f"{name}_namespace.part", f"{name}_namespace.part.mod"} <= {
        cost.name for cost in imports.modules()
    }


def test_a_reload_is_measured_as_one(write_package: Write) -> None:
    name = write_package({"__init__.py": "held = bytearray(2_000_000)\n"})
    module = importlib.import_module(name)
    with track_imports() as imports:
        assert importlib.reload(module) is module
    cost = imports.module(name)
    assert cost
    assert cost.kind == "reload"


def test_what_a_lazy_module_imports_late_is_seen(write_package: Write) -> None:
    name = write_package({"__init__.py": "", "late.py": "import PKG.within\nVALUE = 1\n", "within.py": ""})
    importlib.import_module(name)
    spec = importlib.util.find_spec(f"{name}.late")
    assert spec
    assert spec.loader
    spec.loader = importlib.util.LazyLoader(spec.loader)  # type: ignore[arg-type]
    module = importlib.util.module_from_spec(spec)
    sys.modules[f"{name}.late"] = module
    with track_imports() as imports:
        spec.loader.exec_module(module)
        assert imports.modules() == []
        assert module.VALUE == 1
    assert [cost.name for cost in imports.modules()] == [f"{name}.within"]


def test_threads_keep_their_own_nesting_and_mark_that_they_overlapped(write_package: Write) -> None:
    wait = "import otel_memory_test_barrier as b\nb.meet.wait(30)\nimport PKG.inner\nb.meet.wait(30)\n"
    names = [write_package({"__init__.py": wait, "inner.py": ""}) for _ in range(3)]
    holder = type(sys)("otel_memory_test_barrier")
    holder.meet = threading.Barrier(3)  # type: ignore[attr-defined]
    sys.modules["otel_memory_test_barrier"] = holder
    try:
        with track_imports() as imports:
            threads = [threading.Thread(target=importlib.import_module, args=(name,)) for name in names]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(60)
    finally:
        del sys.modules["otel_memory_test_barrier"]
    for name in names:
        outer, inner = imports.module(name), imports.module(f"{name}.inner")
        assert outer
        assert inner
        assert (outer.parent, inner.parent) == (None, name)
        assert outer.overlapped
        assert outer.thread_id == inner.thread_id
    assert len({cost.thread_id for cost in imports.modules()}) == 3


def test_two_trackers_run_side_by_side_and_the_last_one_takes_the_hook_out(write_package: Write) -> None:
    one, two, three = (write_package({"__init__.py": ""}) for _ in range(3))
    outer = track_imports()
    importlib.import_module(one)
    with track_imports() as inner:
        importlib.import_module(two)
    assert HOOK.installed
    importlib.import_module(three)
    outer.stop()
    outer.stop()
    assert [cost.name for cost in inner.modules()] == [two]
    assert {cost.name for cost in outer.modules()} == {one, two, three}


def test_a_patch_put_over_the_hook_survives_its_removal(write_package: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    name, other = write_package({"__init__.py": ""}), write_package({"__init__.py": ""})
    original = bootstrap._load_unlocked
    imports = track_imports()
    ours = bootstrap._load_unlocked
    seen: list[str] = []

    def theirs(spec: object) -> object:
        seen.append(spec.name)  # type: ignore[attr-defined]
        return ours(spec)

    bootstrap._load_unlocked = theirs
    try:
        imports.stop()
        importlib.import_module(name)
        assert seen == [name]
        assert imports.modules() == []
        with imports:
            importlib.import_module(other)
        assert [cost.name for cost in imports.modules()] == [other]
    finally:
        bootstrap._load_unlocked = original
        HOOK._originals.pop("_load_unlocked", None)


def test_a_fault_of_a_measurement_never_reaches_the_import(
    write_package: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, other = write_package({"__init__.py": "VALUE = 1"}), write_package({"__init__.py": "VALUE = 2"})
    failed = HOOK.failed
    with track_imports() as imports:
        monkeypatch.setattr(import_hook, "read_rss", lambda: 1 / 0)
        assert importlib.import_module(name).VALUE == 1
        monkeypatch.undo()
        sys.path.insert(0, str(Path(importlib.import_module(name).__file__ or "").parents[1]))
        try:
            assert importlib.import_module(other).VALUE == 2
        finally:
            sys.path.pop(0)
    assert HOOK.failed == failed + 1
    assert [cost.name for cost in imports.modules()] == [other]


def test_what_could_not_be_read_is_unknown_and_not_nothing(
    write_package: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = write_package(NESTED)
    monkeypatch.setattr(import_hook, "read_rss", lambda: None)
    with track_imports() as imports:
        importlib.import_module(name)
    package = imports.package(name)
    assert package
    assert package.own.rss_bytes is None
    assert package.inclusive.rss_bytes is None


def test_blocks_are_counted_only_for_who_asks(write_package: Write) -> None:
    one, two = (write_package({"__init__.py": "held = [[] for _ in range(5000)]\n"}) for _ in range(2))
    with ImportTracker() as plain:
        importlib.import_module(one)
        with track_imports() as counting:
            importlib.import_module(two)
    assert [cost.own.blocks for cost in plain.modules() if cost.name == one] == [None]
    assert [cost.own.blocks for cost in counting.modules()] == [pytest.approx(5000, abs=2500)]


def cost(name: str, rss: int = 1) -> ImportCost:
    each = Cost(0.001, rss, None, None, None)
    return ImportCost(name, name.partition(".")[0], None, "load", each, each, None, False, True, 1, 1.0)


def test_the_tables_are_bounded_and_keep_what_costs_most() -> None:
    tracker = ImportTracker(max_modules=100)
    for index in range(1000):
        tracker._take(cost(f"big.m{index}", rss=index))
    for index in range(MAX_PACKAGES + 50):
        tracker._take(cost(f"p{index}"))
    assert len(tracker.modules()) <= 100
    assert tracker.modules()[0].inclusive.rss_bytes == 999
    assert len(tracker.packages()) == MAX_PACKAGES
    assert tracker.dropped >= 900 + 51
    assert tracker.total().rss_bytes == sum(range(1000)) + MAX_PACKAGES + 50


def test_an_import_never_waits_for_a_reader() -> None:
    """An import within a finalizer may run while this thread holds the tables."""
    tracker = ImportTracker()
    with tracker._lock:
        for index in range(1000):
            tracker._take(cost(f"m{index}"))
    assert len(tracker.modules()) == 1000


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_child_forked_within_an_import_goes_on_importing(write_package: Write, tmp_path: Path) -> None:
    source = f"""
import os
pid = os.fork()
if pid == 0:
    import PKG.child
    with open({str(tmp_path / "child")!r}, "w") as file:
        file.write("imported")
    os._exit(0)
status = os.waitpid(pid, 0)[1]
"""
    name = write_package({"__init__.py": source, "child.py": ""})
    with track_imports() as imports:
        module = importlib.import_module(name)
    assert module.status == 0
    assert (tmp_path / "child").read_text() == "imported"
    assert [each.name for each in imports.modules()] == [name]
