"""What could be done about the memory of a process: known shapes of growth, recognised from what was measured.

Owns the recognition and the ranking; the words about each shape are ``suggestion_shapes``'. Pure: takes a judgement
and the process's events, and says nothing that isn't in them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from otel_memory import names
from otel_memory.analyzer.findings import Finding, Holder, read_finding
from otel_memory.analyzer.model import Assessment, Event, Suspect, Verdict
from otel_memory.analyzer.suggestion_shapes import SHAPES, Shape
from otel_memory.humanize import format_bytes, format_duration, format_rate, format_share

Severity = Literal["high", "medium", "low"]

SOON_SECONDS: Final = 24 * 3600.0
"""A leak that meets its limit sooner is of high severity."""
NEAR_LIMIT: Final = 0.9
"""Share of the limit."""
MANY_FREE: Final = 0.3
"""Of resident memory, kept free by the allocators, in a process that grows: fragmentation is measured."""
LEAST_FREED: Final = 2**20
"""Bytes that a diagnostic collection freed are a finding from here on."""
LEAST_MORE: Final = 5
"""So many more threads or descriptors are a finding."""
MOST: Final = 5
"""Suggestions for one process."""
SEVERITIES: Final[tuple[Severity, ...]] = ("high", "medium", "low")
"""The gravest first."""
_LISTENERS: Final = re.compile(
    r"listener|handler|callback|subscriber|observer|receiver|hook|watcher|signal|teardown", re.IGNORECASE
)
_LOGGING: Final = re.compile(r"\blogging\.|loggerDict|Logger\.handlers|Handler\b")
_TASKS: Final = frozenset({"_asyncio.Task", "asyncio.tasks.Task", "coroutine", "async_generator", "generator"})
_IMPORTS: Final = re.compile(r"^<frozen importlib|^importlib/|^sys\.modules\b")
_CONTEXTS: Final = re.compile(r"\bContextVar\b|\bcontextvars\b|\bContext$|\bhamt", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Suggestion:
    """``shape`` is a key of ``SHAPES``; ``subject`` what it is about, as people call it; ``message`` what was
    measured; ``effect`` what is to be expected. ``growth_bytes_per_second`` (By/s) is the part of the growth that it is
    about, None where that isn't known. ``processes`` are the ids of those that it holds for, of one service."""

    shape: str
    severity: Severity
    service_name: str
    processes: tuple[str, ...]
    subject: str
    message: str
    recommendation: str
    effect: str
    growth_bytes_per_second: float | None
    confidence: float

    @property
    def link(self) -> str:
        """Where the guide tells more about the shape."""
        return SHAPES[self.shape].link


@dataclass(frozen=True, slots=True)
class _Found:
    """One finding before it is worded. ``share``: of the process's growth (0-1)."""

    shape: str
    subject: str
    measured: str
    share: float | None
    confidence: float


def suggest(assessment: Assessment, events: Iterable[Event]) -> tuple[Suggestion, ...]:
    """What could be done about one process, best first. ``events`` newest first."""
    events = list(events)
    growing = assessment.verdict in (Verdict.LEAKING, Verdict.WATCH)
    found: list[_Found] = []
    if growing:
        finding = _newest_finding(assessment, events)
        if finding is not None:
            found += _of_finding(finding)
        found += _of_collections(events)
        found += _of_breakdown(assessment, found)
        found += _of_suspects(assessment.suspects, found)
        if not found:
            found.append(
                _Found("unknown_cause", assessment.process.service_name, "nothing tells what grows", None, 0.5)
            )
        if assessment.limit_bytes is None or assessment.limit_kind == "host":
            said = "its limit is not known" if assessment.limit_bytes is None else "only the host's memory limits it"
            found.append(_Found("no_limit", assessment.process.service_name, said, 0.0, 1.0))
    elif assessment.utilization is not None and assessment.utilization >= NEAR_LIMIT:
        said = f"{format_share(assessment.utilization)} of the limit is in use"
        found.append(_Found("near_limit", assessment.process.service_name, said, None, 1.0))
    unique = {(each.shape, each.subject): each for each in reversed(found)}
    return tuple(ranked(_worded(each, assessment) for each in unique.values())[:MOST])


def ranked(suggestions: Iterable[Suggestion]) -> list[Suggestion]:
    """The gravest first, then by how much growth it is about and how sure that is."""
    return sorted(
        suggestions,
        key=lambda each: (
            SEVERITIES.index(each.severity),
            -(each.growth_bytes_per_second or 0.0) * each.confidence,
            -each.confidence,
            each.shape,
            each.subject,
        ),
    )


def merged(suggestions: Iterable[Suggestion]) -> list[Suggestion]:
    """The same suggestion for several processes of one service as one, ranked; it speaks of the gravest of them."""
    by_cause: dict[tuple[str, str, str], Suggestion] = {}
    for each in ranked(suggestions):
        key = each.service_name, each.shape, each.subject
        known = by_cause.get(key)
        if known is None:
            by_cause[key] = each
            continue
        rates = [one.growth_bytes_per_second for one in (known, each) if one.growth_bytes_per_second is not None]
        by_cause[key] = replace(
            known,
            processes=(*known.processes, *each.processes),
            growth_bytes_per_second=sum(rates) if rates else None,
        )
    return ranked(by_cause.values())


# --- from evidence -----------------------------------------------------------------------------------------------


def _newest_finding(assessment: Assessment, events: Sequence[Event]) -> Finding | None:
    for event in events:
        if event.name == names.EVENT_EVIDENCE and event.time >= (assessment.leaking_since or 0.0) - 600.0:
            return read_finding(event.attributes)
    return None


def _of_finding(finding: Finding) -> list[_Found]:
    found: list[_Found] = []
    sure, share = finding.confidence, finding.site_share
    if finding.kind == "cycles":
        made_of = finding.types[0][0] if finding.types else "Python objects"
        notes = f"; {'; '.join(finding.notes[:2])}" if finding.notes else ""
        said = f"cycles of {made_of} wait for the collector{finding.filled}{notes}"
        found.append(_Found("cycles", made_of, said, None, sure))
    imports = _imports(finding)
    if imports is not None:
        found.append(imports)
    for holder in finding.holders:
        if holder.kind in ("unknown", "cycle") or (imports is not None and _IMPORTS.match(holder.name)):
            continue
        first = holder is finding.holders[0]
        part = finding.share_of(holder)
        part = part if part is not None or not first else share
        found.append(_of_holder(finding, holder, part, sure if first else 0.6 * sure))
    if finding.threads >= LEAST_MORE:
        note = _note(finding, "threads") or f"{finding.threads} threads more"
        found.append(_Found("threads", "threads", note, None if finding.kind == "threads" else share, sure))
    if finding.descriptors >= LEAST_MORE:
        note = _note(finding, "open descriptors") or f"{finding.descriptors} open descriptors more"
        found.append(_Found("descriptors", "open files and sockets", note, None, 0.8 * sure))
    by_kind = {
        "native": ("the C allocator", "memory grows in the C allocator that Python's objects don't hold"),
        "fragmentation": ("the allocators", "free memory grows that the allocators keep"),
        "mapped": ("mapped memory", "memory grows that was mapped past the allocators"),
    }
    if finding.kind in by_kind:
        subject, said = by_kind[finding.kind]
        if finding.kind == "native" and finding.types:
            said += f"; {finding.types[0][1]:,} more {finding.types[0][0]}"
        found.insert(0, _Found(finding.kind, subject, said, None, sure))
    if not found and finding.types:
        name, more = finding.types[0]
        shape = _by_type(name) or "objects"
        found.append(_Found(shape, name, f"{more:,} more {name}{finding.filled}", share, 0.8 * sure))
    return found


def _imports(finding: Finding) -> _Found | None:
    """Modules that are imported or made while the process runs, where the evidence shows that."""
    modules = next((more for name, more in finding.types[:2] if name == "module"), 0)
    by_line = bool(finding.sites) and _IMPORTS.match(finding.sites[0][0]) is not None
    if not by_line and not modules and not any(_IMPORTS.match(holder.name) for holder in finding.holders):
        return None
    said = f"{modules:,} more modules" if modules else "the import of modules takes memory"
    said += f" while memory grew for {format_duration(finding.window)}" if finding.window else ""
    return _Found("import_cost", "imports", f"{said}{finding.filled}", finding.site_share if by_line else None, 0.8)


def _of_holder(finding: Finding, holder: Holder, share: float | None, confidence: float) -> _Found:
    shape = _shape_of(finding, holder)
    what = {
        "cache": f"the cache of {holder.name}",
        "closure": f"a closure of {holder.name}",
        "local": holder.name,
        "default": f"a default argument of {holder.name}",
    }.get(holder.kind, holder.name)
    more = f" took {holder.entries:,} more entries" if holder.entries > 0 else f" keeps ever more {holder.container}"
    if holder.size > 0:
        more += f" ({format_bytes(holder.size)})"
    if holder.entries > 0 and finding.window:
        more += f" while memory grew for {format_duration(finding.window)}"
    kind = f", a {holder.container}," if holder.entries > 0 and holder.container and holder.kind != "cache" else ""
    through = f" (kept by {holder.through})" if holder.through else ""
    made = f"; made at {holder.site}" if holder.site else finding.filled
    return _Found(shape, holder.name, f"{what}{kind}{through}{more}{made}", share, confidence)


def _shape_of(finding: Finding, holder: Holder) -> str:
    whole = f"{holder.name} {holder.container}"
    if _LOGGING.search(whole):
        return "logging_handlers"
    if _CONTEXTS.search(holder.container):
        return "contextvars"
    if _LISTENERS.search(holder.name.rpartition(".")[2]):
        return "listeners"
    if holder.kind == "cache":
        return "unbounded_cache"
    grown = [name for name, _ in finding.types[:2]]
    shape = next(filter(None, map(_by_type, grown)), None)
    if shape in ("tracebacks", "tasks", "contextvars"):
        return shape
    if holder.kind == "closure" or shape == "closures":
        return "closures"
    if re.search(r"cache|memo", holder.name, re.IGNORECASE):
        return "unbounded_cache"
    return {"global": "module_container", "class": "module_container", "default": "module_container"}.get(
        holder.kind, "instance_container"
    )


def _by_type(name: str) -> str | None:
    if name in ("traceback", "frame"):
        return "tracebacks"
    if name in ("function", "cell"):
        return "closures"
    if name in _TASKS:
        return "tasks"
    if name == "threading.Thread":
        return "threads"
    if name.startswith("logging."):
        return "logging_handlers"
    if _CONTEXTS.search(name):
        return "contextvars"
    return None


def _note(finding: Finding, beginning: str) -> str | None:
    return next((note for note in finding.notes if note.lower().startswith(beginning)), None)


# --- from everything else ----------------------------------------------------------------------------------------


def _of_collections(events: Sequence[Event]) -> list[_Found]:
    for event in events:
        if event.name != names.EVENT_DIAGNOSTIC_GC:
            continue
        attributes = event.attributes
        left = attributes.get(names.DIAGNOSTIC_GC_UNCOLLECTABLE)
        if isinstance(left, int) and left > 0:
            return [
                _Found(
                    "uncollectable", "gc.garbage", f"a collection left {left:,} objects that it can't free", None, 0.9
                )
            ]
        before, after = attributes.get(names.DIAGNOSTIC_GC_HEAP_BEFORE), attributes.get(names.DIAGNOSTIC_GC_HEAP_AFTER)
        if isinstance(before, int) and isinstance(after, int) and before - after >= LEAST_FREED:
            types = attributes.get(names.DIAGNOSTIC_GC_TYPES)
            first = str(types[0]) if isinstance(types, tuple) and types else "Python objects"
            said = f"a full collection freed {format_bytes(before - after)} that waited in cycles, {first} first"
            return [_Found("cycles", first, said, None, 0.8)]
        return []
    return []


def _of_breakdown(assessment: Assessment, known: Sequence[_Found]) -> list[_Found]:
    parts = assessment.breakdown
    if not parts or any(each.shape == "fragmentation" for each in known):
        return []
    total = sum(parts.values())
    free = parts.get("python_free", 0) + parts.get("c_free", 0)
    if total <= 0 or free < MANY_FREE * total:
        return []
    said = f"the allocators keep {format_bytes(free)} free, {format_share(free / total)} of the resident memory"
    return [_Found("fragmentation", "the allocators", said, None, 0.6)]


def _of_suspects(suspects: Sequence[Suspect], known: Sequence[_Found]) -> list[_Found]:
    # Where a holder is known, a route only says when it is filled.
    if any(each.shape not in ("fragmentation", "descriptors") for each in known):
        return []
    return [
        _Found("per_request", f"{suspect.kind} {suspect.name}", suspect.evidence, suspect.share, suspect.confidence)
        for suspect in suspects[:2]
    ]


# --- words -------------------------------------------------------------------------------------------------------


def _worded(found: _Found, assessment: Assessment) -> Suggestion:
    shape: Shape = SHAPES[found.shape]
    growth = assessment.growth_bytes_per_second
    about = None if growth is None or growth <= 0 else growth * (1.0 if found.share is None else found.share)
    if found.shape in ("near_limit", "no_limit"):
        about = None
    return Suggestion(
        shape=found.shape,
        severity=_severity(found, assessment),
        service_name=assessment.process.service_name,
        processes=(assessment.process.id,),
        subject=found.subject,
        message=_sentence(found),
        recommendation=shape.mend,
        effect=_effect(found, assessment, about),
        growth_bytes_per_second=about,
        confidence=round(found.confidence, 3),
    )


def _sentence(found: _Found) -> str:
    # A name of the program stays as it is written.
    if found.measured.startswith(found.subject):
        return found.measured
    return f"{found.measured[:1].upper()}{found.measured[1:]}"


def _severity(found: _Found, assessment: Assessment) -> Severity:
    if found.shape == "no_limit":
        return "low"
    if found.shape == "near_limit":
        return "medium"
    if assessment.verdict is not Verdict.LEAKING or found.confidence < 0.3:
        return "medium" if found.confidence >= 0.6 else "low"
    reach = assessment.time_to_limit
    if reach is not None and reach.estimate <= SOON_SECONDS:
        return "high"
    return "medium" if reach is not None else ("high" if found.confidence >= 0.8 else "medium")


def _effect(found: _Found, assessment: Assessment, about: float | None) -> str:
    if found.shape == "no_limit":
        return "The time to the limit can be told"
    if found.shape == "near_limit":
        return "Peaks no longer end the process"
    if about is None:
        return "Memory stops growing, as far as this is the cause"
    if found.share is None:
        text = f"Up to {format_rate(about)} less growth"
    else:
        text = f"About {format_rate(about)} less growth, {format_share(found.share)} of it"
    reach = assessment.time_to_limit
    if reach is not None and (found.share is None or found.share >= 0.8):
        text += f"; without it the limit is {format_duration(reach.estimate)} away"
    return text
