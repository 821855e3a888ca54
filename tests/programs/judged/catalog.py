"""What each program gets in requests, and who is to blame in those that leak."""

from __future__ import annotations

import ast
import itertools
import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from otel_memory.demo.load import Route

FOLDER = Path(__file__).parent


class Requests(Protocol):
    """Requests to one route."""

    @property
    def path(self) -> Callable[[random.Random], str]:
        """Makes the path of the next request."""

    def rate(self, age_seconds: float) -> float:
        """Requests a second so long after the start."""


@dataclass(frozen=True)
class Day:
    """A route whose rate follows a compressed day, fourfold from night to noon; all such routes at the same time."""

    per_second: float
    path: Callable[[random.Random], str]
    seconds: float = 80.0

    def rate(self, age_seconds: float) -> float:
        return self.per_second * (1 - 0.6 * math.cos(2 * math.pi * age_seconds / self.seconds))


@dataclass(frozen=True)
class Judged:
    """One program. Of a leaking one, who is to blame: a route, functions of its own file, or a type."""

    name: str
    requests: tuple[Requests, ...] = ()
    route: str = ""
    functions: tuple[str, ...] = ()
    types: tuple[str, ...] = ()

    @property
    def path(self) -> Path:
        return FOLDER / f"{self.name}.py"

    @property
    def leaks(self) -> bool:
        return self.name.startswith("leaky_")

    @property
    def what(self) -> str:
        """The first line of the program."""
        return (ast.get_docstring(ast.parse(self.path.read_text())) or "").rstrip(".")

    def _lines(self) -> list[range]:
        """The lines of the functions that are to blame."""
        found = []
        todo: list[tuple[str, ast.AST]] = [("", ast.parse(self.path.read_text()))]
        while todo:
            prefix, node = todo.pop()
            for inner in ast.iter_child_nodes(node):
                if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                    name = prefix + inner.name
                    if name in self.functions:
                        found.append(range(inner.lineno, (inner.end_lineno or inner.lineno) + 1))
                    todo.append((f"{name}.", inner))
        return found

    def blames(self, suspect: Mapping[str, Any]) -> bool:
        """Whether a suspect is who is to blame. A line counts only if it is one of the program's own functions."""
        name = str(suspect["name"])
        if suspect["kind"] == "route":
            return bool(self.route) and name.rsplit(maxsplit=1)[-1] == self.route
        if suspect["kind"] == "site":
            file, _, line = name.partition(" ")[0].rpartition(":")
            return file == self.path.name and any(int(line) in lines for lines in self._lines())
        return suspect["kind"] == "type" and name in self.types


def at(per_second: float, breath_seconds: float, path: str) -> Route:
    """Requests that breathe; ``{}`` in the path is a number that is new each time, ``{n}`` one below n."""
    if "{}" in path:
        numbers = itertools.count()
        return Route(per_second, breath_seconds, lambda chance: path.format(next(numbers)))
    if "{" in path:
        head, _, rest = path.partition("{")
        most, _, tail = rest.partition("}")
        return Route(per_second, breath_seconds, lambda chance: f"{head}{chance.randrange(int(most))}{tail}")
    return Route(per_second, breath_seconds, lambda chance: path)


def popular(chance: random.Random) -> str:
    """A page, popular ones more often."""
    return f"/pages/{int(chance.paretovariate(0.3)) % 5_000}"


TOOLS = ("statistics", "spreadsheet", "feeds", "mail", "archive", "client", "models", "fourier")

LEAKING = (
    Judged(
        "leaky_user_cache",
        (at(4, 23, "/profile/token-{}"), at(3, 37, "/products"), at(4, 53, "/search"), at(3, 17, "/basket")),
        route="/profile/<token>",
        functions=("load_profile", "profile"),
    ),
    Judged(
        "leaky_audit_list",
        (
            at(3, 37, "/"),
            at(4, 53, "/articles/{9000}"),
            at(2, 23, "/search"),
            at(5, 29, "/checkout/{}"),
            at(2, 43, "/orders"),
        ),
        route="/checkout/{order}",
        functions=("checkout", "record"),
    ),
    Judged(
        "leaky_listeners",
        (at(6, 31, "/live/{}"), at(5, 47, "/prices"), at(4, 19, "/history")),
        route="/live/<int:number>",
        functions=("LiveView.__init__", "live"),
        types=("__main__.LiveView",),
    ),
    Judged(
        "leaky_cycles",
        (at(2.5, 29, "/thread/{}"), at(4, 41, "/front"), at(3, 23, "/feed"), at(4, 53, "/users/{900}")),
        route="/thread/{number}",
        functions=("Comment.__init__", "thread"),
        types=("__main__.Comment",),
    ),
    Judged("leaky_closures", functions=("render", "deliver"), types=("function", "cell")),
    Judged(
        "leaky_tracebacks",
        (at(4, 43, "/upload"), at(4, 29, "/files"), at(4, 19, "/preview"), at(3, 59, "/quota")),
        route="/upload",
        functions=("parse", "upload"),
        types=("traceback", "frame", "IndexError", "builtins.IndexError"),
    ),
    Judged(
        "leaky_timer",
        (at(4, 31, "/quote/s{50}"), at(4, 43, "/chart"), at(4, 23, "/orders")),
        functions=("Statistics.collect",),
    ),
    Judged(
        "leaky_native",
        (at(4.5, 37, "/thumbnail/{}"), at(4, 23, "/album"), at(3, 53, "/tags"), at(3, 29, "/export")),
        route="/thumbnail/<int:number>",
    ),
    Judged(
        "leaky_threads",
        (at(3, 41, "/export/{}"), at(3, 29, "/exports"), at(4, 23, "/customers"), at(3, 53, "/invoices")),
        route="/export/<int:number>",
        functions=("await_confirmation", "export"),
        types=("threading.Thread", "threading.Event", "threading.Condition"),
    ),
    Judged(
        "leaky_handlers",
        (at(4, 29, "/jobs/{}"), at(3, 41, "/jobs"), at(3, 53, "/workers"), at(3, 19, "/queue")),
        route="/jobs/{number}",
        functions=("job", "job_logger"),
        types=("logging.LogRecord", "logging.handlers.MemoryHandler", "logging.Logger"),
    ),
    Judged(
        "leaky_slowly",
        (at(6, 37, "/search/word-{}"), at(1.5, 23, "/report"), at(4, 53, "/page"), at(3, 29, "/suggest")),
        route="/search/<word>",
        functions=("search",),
    ),
)
HEALTHY = (
    Judged("calm_warm_up", (at(7, 31, "/lookup/{}"), at(4, 43, "/sum"), at(3, 23, "/rows"))),
    Judged("calm_lru", (Route(7, 29, popular), at(3, 41, "/feed"), at(3, 53, "/ping"))),
    Judged(
        "calm_daily",
        (
            Day(5, lambda chance: "/login"),
            Day(4, lambda chance: "/work"),
            Day(4, lambda chance: "/news"),
        ),
    ),
    Judged("calm_batches"),
    Judged("calm_fragments", (at(5, 37, "/store"), at(4, 23, "/load"), at(4, 53, "/rows"))),
    Judged("calm_garbage", (at(6, 31, "/tree/{}"), at(4, 43, "/menu"), at(4, 23, "/stock"))),
    Judged("calm_buffers", (at(4, 37, "/upload"), at(4, 53, "/files"), at(5, 23, "/status"))),
    Judged("calm_ttl_cache", (at(5, 41, "/answers/{}"), at(4, 53, "/questions"), at(4, 23, "/votes"))),
    Judged(
        "calm_cold_start",
        (*(at(0.03, 37, f"/tools/{name}") for name in TOOLS), at(6, 31, "/home"), at(6, 43, "/search")),
    ),
    Judged("calm_pool", (at(9, 33, "/query/{}"), at(5, 47, "/home"))),
    Judged("calm_backlog"),
)
HELD_OUT = (
    Judged(
        "leaky_signals",
        (at(5, 41, "/dashboard/{}"), at(4, 29, "/prices"), at(4, 53, "/articles/{4000}")),
        functions=("dashboard",),
        types=("function", "cell"),
    ),
    Judged(
        "leaky_tasks",
        (at(5, 31, "/order/{}"), at(4, 43, "/stock"), at(4, 23, "/health"), at(3, 53, "/basket/{800}")),
        route="/order/{number}",
        functions=("order", "reserve"),
        types=("_asyncio.Task", "coroutine", "_asyncio.Future"),
    ),
    Judged("leaky_grpc", functions=("Sessions.open",)),
    Judged("leaky_results", functions=("count_words",), types=("celery.result.EagerResult",)),
    Judged("leaky_context", functions=("note", "produce")),
    Judged(
        "leaky_vectors",
        (at(6, 37, "/similar/text-{}"), at(4, 23, "/statistics"), at(4, 53, "/texts")),
        route="/similar/{text}",
        functions=("Index.embed",),
        types=("numpy.ndarray",),
    ),
    Judged("calm_arrays", (at(4, 31, "/window/{900}"), at(4, 47, "/latest"), at(3, 23, "/rows"))),
    Judged("calm_regexes", (at(5, 37, "/filter/{}"), at(3, 29, "/page/{90}"), at(3, 53, "/rows"))),
    Judged("calm_scheduler"),
    Judged("calm_streams", (at(2, 43, "/stream/{}"), at(3, 29, "/size"), at(4, 23, "/ping"))),
    Judged("calm_churn"),
    Judged("calm_ring", (at(5.5, 37, "/event/{}"), at(2, 29, "/recent"), at(4, 53, "/rows"))),
)
"""Written before they were judged, of other kinds and with other frameworks. After that the order of suspects was
changed for one of them (calls without a name)."""
HELD_OUT_TOO = (
    Judged("leaky_jobs", functions=("Job.run",), types=("__main__.Job",)),
    Judged(
        "leaky_late",
        (at(4, 31, "/basket/{}"), at(4, 43, "/offers"), at(3, 23, "/search")),
        route="/basket/{number}",
        functions=("Campaign.remember", "basket"),
    ),
    Judged(
        "leaky_files",
        (at(2, 37, "/import/{}"), at(4, 23, "/preview"), at(4, 53, "/status")),
        route="/import/<int:number>",
        functions=("unpack", "take"),
        types=("tempfile.SpooledTemporaryFile", "_io.BytesIO"),
    ),
    Judged("leaky_queue", functions=("receive",)),
    Judged(
        "leaky_frames",
        (at(4, 31, "/open/{}"), at(4, 47, "/rows"), at(4, 23, "/count")),
        route="/open/{number}",
        functions=("page", "open_page"),
        types=("generator", "frame"),
    ),
    Judged("calm_flush"),
    Judged("calm_reload", (at(5, 31, "/price/{12000}"), at(4, 47, "/rows"))),
    Judged("calm_exports", (at(0.05, 37, "/export"), at(4, 29, "/rows"), at(4, 53, "/sum"))),
    Judged("calm_workers", (at(8, 37, "/work/{}"), at(4, 29, "/rows"))),
    Judged("calm_logs", (at(4, 31, "/order/{}"), at(4, 53, "/rows"))),
)
"""The same once more, after that change."""
PROGRAMS = {one.name: one for one in (*LEAKING, *HEALTHY, *HELD_OUT, *HELD_OUT_TOO)}
