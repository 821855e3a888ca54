"""Will there be request counts by route, which attribution lives on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from otel_memory.doctor.installation import disabled_instrumentations, floors, installed
from otel_memory.doctor.report import Finding

OPT_IN: Final = "OTEL_SEMCONV_STABILITY_OPT_IN"
_PREFIX: Final = "opentelemetry-instrumentation-"
FRAMEWORKS: Final = {
    "flask": "flask",
    "fastapi": "fastapi",
    "django": "django",
    "starlette": "starlette",
    "tornado": "tornado",
    "falcon": "falcon",
    "pyramid": "pyramid",
    "aiohttp": "aiohttp-server",
}
"""Distribution of a web framework -> its instrumentation, without the prefix that all have."""
_NOT_SERVERS_ALONE: Final = frozenset({"aiohttp", "tornado", "starlette"})
"""Often installed for something else: as a client, a loop, a part of another framework."""


def check_routes(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Is a framework instrumented, and under the convention that has routes."""
    disabled = disabled_instrumentations(environ)
    present = [name for name in FRAMEWORKS if installed(name)]
    covered = [name for name in present if installed(_PREFIX + FRAMEWORKS[name])]
    off = [name for name in covered if disabled & {FRAMEWORKS[name].replace("-", "_"), "*"}]
    counted = [name for name in covered if name not in off]
    bare = [name for name in present if name not in covered and not (counted and name in _NOT_SERVERS_ALONE)]
    if not present:
        yield Finding("routes", "note", "no web framework is installed: growth is attributed to operations alone")
        return
    for name in off:
        yield Finding("routes", "warning", f"the instrumentation of {name} is switched off: its routes are not seen")
    if bare:
        sure = any(name not in _NOT_SERVERS_ALONE for name in bare)
        package = _PREFIX + FRAMEWORKS[bare[0]]
        yield Finding(
            "routes",
            "warning" if sure else "note",
            f"{', '.join(bare)} not instrumented: where it serves requests, growth can't be laid at a route's door",
            f"pip install '{package}{_floor()}'",
        )
    if not counted:
        return
    opted = {part.strip().removesuffix("/dup") for part in environ.get(OPT_IN, "").split(",")}
    if "http" in opted:
        yield Finding("routes", "ok", f"{', '.join(counted)}: requests are counted by route")
    else:
        yield Finding(
            "routes",
            "warning",
            f"{', '.join(counted)}: requests are counted under the old convention, in which the route may be missing",
            f"{OPT_IN}=http",
        )


def _floor() -> str:
    """The floor of the instrumentations is that of their base, which they pin."""
    return next((str(r.specifier) for r in floors() if r.name == "opentelemetry-instrumentation"), "")
