"""``python3 -m tests.parts [--needed] [NAME…]``: get the real parts, all of them unless some are named."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

from tests.parts.recipes import NEEDED, Recipe, all_recipes
from tests.parts.steps import PartUnavailable


def say(line: str) -> None:
    """Tell one line at once, also into a pipe."""
    print(f"parts: {line}", flush=True)


def get(recipe: Recipe) -> bool:
    """Get one part; say where it lies, or why it can't be had, how to mend it and what is lost without it."""
    began = time.monotonic()
    try:
        found = recipe.locate()
        if found is None:
            say(f"{recipe.name}: fetching {recipe.title} ({recipe.cost})")
            found = recipe.fetch(say)
            say(f"{recipe.name}: ready after {time.monotonic() - began:.0f} s: {found}")
        else:
            say(f"{recipe.name}: {found}")
    except PartUnavailable as error:
        say(f"{recipe.name}: NOT HAD: {error.reason}")
        say(f"{recipe.name}:   mend: {error.mend}")
        say(f"{recipe.name}:   until then the tests marked needs({recipe.name!r}) do not run")
        return False
    blocked = recipe.blocked()
    if blocked:
        say(f"{recipe.name}: fetched, but it can't run: {blocked}")
    return blocked is None


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 0 when every part asked for is there, else 1."""
    recipes = all_recipes()
    parser = argparse.ArgumentParser(prog="./dev parts", description="Get the real parts that the tests run against.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of: {', '.join(recipes)}; default: all")
    parser.add_argument(
        "--needed", action="store_true", help=f"only those that today's tests need: {', '.join(NEEDED)}"
    )
    arguments = parser.parse_args(argv)
    unknown = [name for name in arguments.names if name not in recipes]
    if unknown:
        parser.error(f"there is no part {unknown[0]!r}; there are: {', '.join(recipes)}")
    names = arguments.names or (NEEDED if arguments.needed else tuple(recipes))
    results = [get(recipes[name]) for name in names]
    return 0 if all(results) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("parts: stopped; what was finished stays, the rest begins again next time", file=sys.stderr)
        sys.exit(130)
