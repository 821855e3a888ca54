"""The known shapes of growth: what each is, how to see that it is this one, and how it is mended.

Owns the words; ``docs/suggestions.md`` is made from them. Which shape something has is for ``suggestions`` to say.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

GUIDE: Final = "docs/suggestions.md"


@dataclass(frozen=True, slots=True)
class Shape:
    """One shape. ``name`` is its id, and its heading in the guide; ``mend`` is what a suggestion recommends, ``check``
    how a person makes sure, ``example`` the mended code."""

    name: str
    title: str
    what: str
    check: str
    mend: str
    example: str = ""

    @property
    def link(self) -> str:
        """Where the guide tells more."""
        return f"{GUIDE}#{self.name.replace('_', '-')}"


_ALL: Final = (
    Shape(
        "unbounded_cache",
        "Unbounded cache",
        "The cache of a function, or a dict that is used as one, takes an entry for every new argument and never gives "
        "one back.",
        "`function.cache_info()` shows `maxsize=None`, or a `currsize` that only rises.",
        "Give the cache a bound (`functools.lru_cache(maxsize=…)`, `cachetools.TTLCache`), and register it with "
        "`register_evictor` so that it gives way when memory runs short",
        "@functools.lru_cache(maxsize=10_000)\ndef profile(user_id): ...",
    ),
    Shape(
        "module_container",
        "Container of a module",
        "A list, dict or set of a module or a class is added to by every call. It lives as long as the process.",
        "`len()` of it rises with the requests and never falls.",
        "Bound it (`collections.deque(maxlen=…)`, a cache with a maximum), or keep what it holds in something that "
        "ends with the request",
        "RECENT = collections.deque(maxlen=1_000)",
    ),
    Shape(
        "instance_container",
        "Container of a long-lived object",
        "An object that lives as long as the process keeps what every call adds to it.",
        "Look up where the attribute is added to, and whether anything ever removes from it.",
        "Remove entries when they are done with, bound the container, or hold them weakly "
        "(`weakref.WeakValueDictionary`)",
        "self._sessions = weakref.WeakValueDictionary()",
    ),
    Shape(
        "listeners",
        "Listeners that are never removed",
        "Callbacks are registered with every request or connection and stay registered when it is over.",
        "The list of listeners is longer than the number of things that are open.",
        "Remove each listener where what registered it ends (`finally:`, a context manager), or register weak "
        "references (`weakref.WeakMethod`)",
        "bus.subscribe(callback)\ntry: ...\nfinally: bus.unsubscribe(callback)",
    ),
    Shape(
        "logging_handlers",
        "Logging handlers added over and over",
        "`logger.addHandler` runs with every call, or loggers are made with names that never repeat.",
        "`len(logging.getLogger(name).handlers)` is more than one or two; `logging.root.manager.loggerDict` grows.",
        "Configure logging once when the process starts; name loggers after modules, and put what differs into `extra`",
        "logger = logging.getLogger(__name__)\nlogger.info('done', extra={'order': number})",
    ),
    Shape(
        "cycles",
        "Cycles",
        "Objects refer to each other in a ring, so that only the cyclic collector can free them, and it comes too late "
        "or not at all.",
        "`diagnostic_gc_run()` frees them and names the types and the attribute that closes the ring.",
        "Break the ring (a `weakref` for the way back, or set it to None when done); see that nobody has called "
        "`gc.disable()` or `gc.freeze()`",
        "self._parent = weakref.ref(parent)",
    ),
    Shape(
        "uncollectable",
        "Objects that the collector can't free",
        "The collector found cycles and could not free them: objects of a C type without support for it, or "
        "`gc.DEBUG_SAVEALL`.",
        "`gc.garbage` is not empty after `gc.collect()`.",
        "Break the ring by hand where the objects are done with, and update the package whose types they are",
    ),
    Shape(
        "threads",
        "Threads that never end",
        "Threads are started and neither end nor are joined. Each has a stack, and keeps what its function's variables "
        "refer to.",
        "`threading.active_count()` rises.",
        "Use one `concurrent.futures.ThreadPoolExecutor` for all, or give each thread a way to end and join it",
        "with ThreadPoolExecutor(max_workers=8) as pool: ...",
    ),
    Shape(
        "tasks",
        "Tasks and coroutines that never end",
        "Tasks wait for something that never comes, or generators and coroutines are kept half-way.",
        "`len(asyncio.all_tasks())` rises.",
        "Put a time limit on what they wait for (`asyncio.timeout`), and hold them in an `asyncio.TaskGroup` that ends "
        "them",
        "async with asyncio.timeout(30): ...",
    ),
    Shape(
        "closures",
        "Closures that are kept",
        "Functions made inside functions are kept somewhere, and with them every variable of the outer function that "
        "they use.",
        "The holder is a closure, or functions and cells are among the types that grow.",
        "Keep a method or a `functools.partial` of the few values that are needed, and drop it when done",
        "on_done = functools.partial(notify, order_id)",
    ),
    Shape(
        "tracebacks",
        "Exceptions that are kept with their tracebacks",
        "A stored exception keeps its traceback, this keeps every frame on the way, and each frame all its variables.",
        "`traceback` and `frame` are among the types that grow.",
        "Store the text (`traceback.format_exception`), or `error.with_traceback(None)`",
        "failed.append(repr(error))",
    ),
    Shape(
        "contextvars",
        "Context that is never left",
        "`ContextVar.set` without `reset`, or callbacks and tasks that each keep a copy of a context which holds much.",
        "`_contextvars.Context` or `hamt` are among the types that grow.",
        "Reset with the token that `set` gave (`finally:`), and keep small values in context variables",
        "token = request_var.set(request)\ntry: ...\nfinally: request_var.reset(token)",
    ),
    Shape(
        "descriptors",
        "Files and connections that stay open",
        "Files, sockets or pipes are opened and not closed; their buffers stay with them.",
        "The number of open descriptors rises; `python -X dev` warns of each one that is forgotten.",
        "Close them (`with open(…)`), reuse one client or session for all calls, and put a bound on pools",
        "with httpx.Client() as client: ...",
    ),
    Shape(
        "import_cost",
        "Imports while the process runs",
        "Modules are imported with the first requests, or made anew over and over (reloading, templates and plugins "
        "that are executed under names that never repeat). What an import brings stays as long as the process.",
        "`len(sys.modules)` rises; with `OTEL_PYTHON_MEMORY_PACKAGES=true` the process tells what each package cost "
        "(`otel_memory.package.import.usage`).",
        "Import what every process needs as it starts, before workers are forked, so that they share it; leave out or "
        "load late what few need (`get_lazy_loader`); and execute the same source under one name",
        "import reports  # at the head of the module, not inside the view",
    ),
    Shape(
        "native",
        "Memory of a C library",
        "Memory in the C allocator grows that Python's objects don't account for: a C extension, or objects that own "
        "such memory, like connections, statements, images and arrays.",
        "`otel_memory.evidence.c.growth` is most of the growth and the allocation sites explain little.",
        "Close or free what owns it when done, update the extension, and where it can't be named from Python run the "
        "program under `memray run --native`",
    ),
    Shape(
        "fragmentation",
        "Free memory that the allocators keep",
        "Memory was freed, but between blocks that are still in use, so that the allocators can't give it back.",
        "The free parts of the breakdown grow and the parts in use don't.",
        "Load large data in pieces, or in a process of its own; set `MALLOC_ARENA_MAX=2`; let the cleanup trim the "
        "heap (`OTEL_PYTHON_MEMORY_CLEANUP`)",
        "MALLOC_ARENA_MAX=2 opentelemetry-instrument python app.py",
    ),
    Shape(
        "mapped",
        "Memory mapped past the allocators",
        "`mmap` of the program, of a JIT or of a library with an allocator of its own grows.",
        "`/proc/<pid>/smaps` names the mappings that grow.",
        "Close the mappings when done, and bound the library's own pool",
    ),
    Shape(
        "per_request",
        "Growth with the calls of one route or operation",
        "Memory grows as it is called, and what it keeps is not known yet.",
        "Call it alone in a loop and watch the memory.",
        "Look for what it stores beyond its return: caches without a bound, module-level lists and dicts, listeners, "
        "attributes of long-lived objects",
    ),
    Shape(
        "objects",
        "Objects that are kept",
        "Ever more objects of a type are alive, and who holds them is not known.",
        "`gc.get_referrers` of one of them.",
        "Find who stores them where they are made, and let them go when done",
    ),
    Shape(
        "unknown_cause",
        "Growth of unknown cause",
        "Memory grows, and nothing that was sent tells what.",
        "The process view shows neither suspects nor findings.",
        "Run the process with otel-memory's probe, which looks for the cause itself, decorate what you suspect with "
        "`@monitor_memory`, and instrument the web framework so that routes can be compared",
    ),
    Shape(
        "near_limit",
        "Little room below the limit",
        "Memory doesn't grow, but so little is left that a peak may end the process.",
        "`utilization` is above 0.9.",
        "Raise the limit, run fewer workers in it, or make caches smaller",
    ),
    Shape(
        "no_limit",
        "No limit known",
        "Memory grows and nothing says how far it may.",
        "`limit_bytes` is null, or is all of the host's memory.",
        "Set the container's limit, or `OTEL_PYTHON_MEMORY_LIMIT` to the budget: then the time to it can be told",
    ),
)

SHAPES: Final[dict[str, Shape]] = {shape.name: shape for shape in _ALL}
"""Every shape by its name."""
