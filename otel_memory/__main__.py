"""The command ``otel-memory``: maps each verb to the room that owns it, and does nothing else.

A verb's module is imported only when the verb is called, so that ``otel-memory doctor`` works in an
application's environment that has none of the analyzer's dependencies. Every verb is a function
``main(argv) -> exit status``: 0 well, 1 found something (a leak, a failed check), 2 could not run.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

from otel_memory.version import __version__

COULD_NOT_RUN = 2
INTERRUPTED = 130
"""What shells say of a command that Ctrl-C ended."""
PIPE_CLOSED = 141
"""What shells say of a command whose reader (`| head`) went away before it was through."""


_JUDGING = frozenset({"serve", "score"})


class Verb(NamedTuple):
    """Where a verb lives, what it needs and what it does."""

    target: str
    extra: str | None
    help: str


VERBS: dict[str, Verb] = {
    "demo": Verb(
        "otel_memory.demo.runner:main", "all", "a leaking and a healthy sample, the analyzer, and the verdict"
    ),
    "serve": Verb(
        "otel_memory.analyzer.command:main", "analyzer", "run the analyzer: OTLP in, verdicts and a page out"
    ),
    "leaks": Verb("otel_memory.clients.leaks:main", "analyzer", "list the processes that leak, worst first"),
    "alerts": Verb("otel_memory.clients.alerts:main", "analyzer", "show what fires; follow every change"),
    "explain": Verb("otel_memory.clients.explain:main", "analyzer", "tell the whole story of one process"),
    "topics": Verb(
        "otel_memory.analyzer.kafka.topics_command:main", "analyzer,kafka", "make or check the analyzer's Kafka topics"
    ),
    "score": Verb("otel_memory.analyzer.scorefile.command:main", "analyzer", "judge the series of memory in a file"),
    "doctor": Verb("otel_memory.doctor:main", None, "check this environment: distro, exporter, endpoint, limit"),
}


def usage() -> str:
    """The text of ``otel-memory --help``."""
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {name:<{width}}  {verb.help}" for name, verb in VERBS.items())
    return (
        "usage: otel-memory [--version] [--help] COMMAND [ARGUMENTS]\n\n"
        "Says that a Python service leaks memory, when it will hit its limit, and what grows.\n\n"
        f"commands:\n{verbs}\n\n"
        "`otel-memory COMMAND --help` tells more of one command.\n"
        "exit status: 0 well, 1 found something (a leak, a failed check), 2 could not run"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    _lose_nothing_to_an_encoding()
    try:
        status = _run(arguments)
    except BrokenPipeError:
        status = PIPE_CLOSED
    except KeyboardInterrupt:
        status = INTERRUPTED
    _flush_or_drop()
    return status


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage())
        return 0 if arguments else COULD_NOT_RUN
    name, *rest = arguments
    if name in ("-V", "--version"):
        print(f"otel-memory {__version__}")
        return 0
    verb = VERBS.get(name)
    if verb is None:
        print(
            f"otel-memory: there is no command {name!r}.{_hint(name)} `otel-memory --help` lists them.", file=sys.stderr
        )
        return COULD_NOT_RUN
    try:
        return _load(name, verb)(rest)
    except SystemExit as stop:
        # argparse ends so, with 0 after --help and 2 after a wrong argument.
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
            return COULD_NOT_RUN
        return stop.code if isinstance(stop.code, int) else 0
    except (BrokenPipeError, KeyboardInterrupt):
        raise
    except Exception:
        # Left alone it would end with 1, which says that something was found.
        import traceback

        traceback.print_exc()
        print(f"otel-memory: `{name}` failed by itself; that is a fault of otel-memory.", file=sys.stderr)
        return COULD_NOT_RUN


def _load(name: str, verb: Verb) -> Callable[[Sequence[str]], int]:
    module, _, attribute = verb.target.partition(":")
    if name in _JUDGING:
        # Read when numpy is loaded. Products of small matrices gain nothing by threads; on a busy machine these spin.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        main: Callable[[Sequence[str]], int] = getattr(importlib.import_module(module), attribute)
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError)
        if (error.name or "").split(".")[0] == "otel_memory":
            raise
        what = f"the package {error.name!r}, which is not installed" if missing else f"what can't be loaded: {error}"
        mend = f"pip install 'otel-memory[{verb.extra}]'" if verb.extra else "pip install --force-reinstall otel-memory"
        raise SystemExit(f"otel-memory: `{name}` needs {what}.\n  mend: {mend}") from error
    return main


def _hint(name: str) -> str:
    import difflib

    near = difflib.get_close_matches(name, VERBS, n=1)
    return f" Did you mean `{near[0]}`?" if near else ""


def _lose_nothing_to_an_encoding() -> None:
    """A character that the output's encoding lacks becomes an escape, and not an error half-way through."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def _flush_or_drop() -> None:
    """What a pipe without a reader can't take any more ends in nothing, so that the interpreter's exit is quiet."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)


if __name__ == "__main__":
    sys.exit(main())
