"""``./dev bench [name …]``: runs the benchmarks, each in a process of its own, so that none warms another up."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent
# Need more than the repository (labelled traces, a broker) and take minutes: only by name.
BY_NAME_ONLY = {"judgement", "kafka_exporter", "live", "scale"}


def main() -> int:
    """Run those that are named, or all; 1 if one failed."""
    known = sorted(path.stem.removeprefix("bench_") for path in FOLDER.glob("bench_*.py"))
    parser = argparse.ArgumentParser(prog="./dev bench", description="Run the benchmarks; each prints its rows.")
    parser.add_argument("name", nargs="*", help=f"{', '.join(known)} (default: all but {', '.join(BY_NAME_ONLY)})")
    parser.add_argument("--list", action="store_true", help="only list the names")
    options = parser.parse_args()
    if options.list:
        print("\n".join(known))
        return 0
    unknown = [name for name in options.name if name not in known]
    if unknown:
        parser.error(f"there is no benchmark {unknown[0]!r}; known are: {', '.join(known)}")
    failed = []
    for name in options.name or [name for name in known if name not in BY_NAME_ONLY]:
        print(f"… {name}", file=sys.stderr, flush=True)
        # As the analyzer is run: see otel_memory/__main__.py.
        env = {"OPENBLAS_NUM_THREADS": "1", **os.environ}
        command = [sys.executable, "-m", f"tests.benchmarks.bench_{name}"]
        if subprocess.run(command, check=False, env=env).returncode:
            failed.append(name)
        print(flush=True)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
