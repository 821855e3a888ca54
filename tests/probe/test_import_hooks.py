"""The import hook: tells of a module once its code has run, and is otherwise not there."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import pkgutil
import sys
import threading
from collections.abc import Callable, Iterator
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

import pytest

from otel_memory.probe import import_hooks


def fail(error: BaseException) -> None:
    raise AssertionError(error)


Write = Callable[[str, str], None]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    monkeypatch.syspath_prepend(tmp_path)
    written: list[str] = []

    def one(name: str, source: str) -> None:
        (tmp_path / f"{name}.py").write_text(source)
        written.append(name)
        importlib.invalidate_caches()

    yield one
    for name in written:
        sys.modules.pop(name, None)
    assert import_hooks._finder not in sys.meta_path, "a test has left the hook behind"


def test_a_module_is_told_of_after_its_code_has_run_and_looks_as_it_would_without(write: Write) -> None:
    write("hooked_one", "def f():\n    return 1\nimport sys\nLOADER = __spec__.loader\n")
    seen: list[tuple[str, bool]] = []
    undo = import_hooks.when_imported("hooked_one", lambda m: seen.append((m.__name__, hasattr(m, "LOADER"))), fail)
    assert seen == []
    module = importlib.import_module("hooked_one")
    assert seen == [("hooked_one", True)]
    for loader in (module.__spec__.loader, module.__loader__, module.LOADER):
        assert type(loader) is SourceFileLoader
    assert inspect.getsource(module.f) == "def f():\n    return 1\n"
    undo()
    undo()
    assert import_hooks._finder not in sys.meta_path


def test_one_that_is_there_is_told_of_at_once(write: Write) -> None:
    write("hooked_two", "")
    module = importlib.import_module("hooked_two")
    seen: list[ModuleType] = []
    undo = import_hooks.when_imported("hooked_two", seen.append, fail)
    assert seen == [module]
    import_hooks.poll()
    assert seen == [module], "once is enough"
    undo()


def test_a_reload_and_a_second_import_are_told_of_again(write: Write) -> None:
    write("hooked_three", "")
    seen: list[ModuleType] = []
    undo = import_hooks.when_imported("hooked_three", seen.append, fail)
    first = importlib.import_module("hooked_three")
    importlib.reload(first)
    del sys.modules["hooked_three"]
    second = importlib.import_module("hooked_three")
    assert seen == [first, first, second]
    undo()
    importlib.reload(second)
    assert len(seen) == 3


def test_what_the_module_raises_passes_and_what_the_callback_raises_does_not(write: Write) -> None:
    write("hooked_bad", "raise KeyError('its own')")
    write("hooked_good", "")
    errors: list[BaseException] = []
    seen: list[ModuleType] = []

    def callback(module: ModuleType) -> None:
        seen.append(module)
        raise ValueError("ours")

    undos = [import_hooks.when_imported(name, callback, errors.append) for name in ("hooked_bad", "hooked_good")]
    with pytest.raises(KeyError, match="its own"):
        importlib.import_module("hooked_bad")
    assert "hooked_bad" not in sys.modules
    importlib.import_module("hooked_good")
    assert [module.__name__ for module in seen] == ["hooked_good"]
    assert [str(error) for error in errors] == ["ours"]
    for undo in undos:
        undo()


def test_a_module_that_is_missing_stays_missing(write: Write) -> None:
    undo = import_hooks.when_imported("hooked_missing", fail, fail)
    with pytest.raises(ModuleNotFoundError, match="hooked_missing"):
        importlib.import_module("hooked_missing")
    assert importlib.util.find_spec("hooked_missing") is None
    undo()


def test_looking_for_a_module_runs_nothing_and_finds_a_loader_of_the_right_kind(write: Write) -> None:
    write("hooked_looked", "raise SystemExit")
    undo = import_hooks.when_imported("hooked_looked", fail, fail)
    spec = importlib.util.find_spec("hooked_looked")
    assert spec is not None
    assert isinstance(spec.loader, SourceFileLoader)
    assert spec.loader.get_source("hooked_looked") == "raise SystemExit"
    assert pkgutil.resolve_name("sys") is sys
    undo()


def test_a_lazy_module_is_told_of_when_its_code_runs(write: Write) -> None:
    write("hooked_lazy", "value = 5")
    seen: list[str] = []
    undo = import_hooks.when_imported("hooked_lazy", lambda module: seen.append(module.__name__), fail)
    spec = importlib.util.find_spec("hooked_lazy")
    assert spec is not None
    assert spec.loader is not None
    spec.loader = importlib.util.LazyLoader(spec.loader)
    module = importlib.util.module_from_spec(spec)
    sys.modules["hooked_lazy"] = module
    assert spec.loader is not None
    spec.loader.exec_module(module)
    assert seen == []
    assert module.value == 5
    assert seen == ["hooked_lazy"]
    undo()


def test_beside_another_hook_of_the_kind_both_are_told(write: Write) -> None:
    wrapt = pytest.importorskip("wrapt", reason="comes with opentelemetry-instrumentation")
    for order in (0, 1):
        name = f"hooked_both_{order}"
        write(name, "")
        seen: list[str] = []
        undo = import_hooks.when_imported(name, lambda _module, seen=seen: seen.append("ours"), fail)
        wrapt.register_post_import_hook(lambda _module, seen=seen: seen.append("theirs"), name)
        if order:  # ours behind theirs
            sys.meta_path.remove(import_hooks._finder)
            sys.meta_path.append(import_hooks._finder)
        importlib.import_module(name)
        import_hooks.poll()
        assert sorted(seen) == ["ours", "theirs"]
        undo()


def test_poll_tells_of_one_that_another_finder_claimed_or_that_was_being_imported(write: Write) -> None:
    seen: list[ModuleType] = []
    undo = import_hooks.when_imported("hooked_made", seen.append, fail)
    module = ModuleType("hooked_made")
    sys.modules["hooked_made"] = module
    import_hooks.poll()
    import_hooks.poll()
    assert seen == [module]
    undo()
    del sys.modules["hooked_made"]

    write(
        "hooked_self",
        "from otel_memory.probe import import_hooks\n"
        "seen = []\n"
        "undo = import_hooks.when_imported('hooked_self', seen.append, print)\n"
        "at_once = list(seen)\n",
    )
    module = importlib.import_module("hooked_self")
    assert module.at_once == [], "its code had not run"
    import_hooks.poll()
    assert module.seen == [module]
    module.undo()


def test_many_threads_that_import_at_once_see_a_module_that_is_ready(write: Write) -> None:
    write("hooked_threads", "import time\ntime.sleep(0.05)\nvalue = 1\n")

    def mark(module: ModuleType) -> None:
        module.marked = True  # type: ignore[attr-defined]

    undo = import_hooks.when_imported("hooked_threads", mark, fail)
    seen: list[tuple[int, bool]] = []

    def use() -> None:
        module = importlib.import_module("hooked_threads")
        seen.append((module.value, module.marked))

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert seen == [(1, True)] * 8
    undo()
