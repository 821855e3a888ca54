"""What an alert says: sentences with figures, labels and annotations.

Owns the words; decides nothing. Labels are identity (Alertmanager takes two alerts with different labels for two
alerts), so only what doesn't change in the life of a process is a label; scores and times are annotations.
"""

from __future__ import annotations

from otel_memory.analyzer.model import AlertState, Assessment, Suspect
from otel_memory.humanize import format_bytes, format_duration, format_limit, format_rate, format_share


def leak(assessment: Assessment, state: AlertState, *, gone: bool) -> tuple[str, str]:
    """Summary and description of ``memory_leak``."""
    name = assessment.process.service_name
    if state is AlertState.RESOLVED:
        return _resolved(assessment, f"{name} no longer leaks", gone)
    summary = f"{name} leaks"
    # It was judged by what came before: growth may be 0 or less at this moment, and "leaks -5 kB/min" says nothing.
    if assessment.growth_bytes_per_second is not None and assessment.growth_bytes_per_second > 0:
        summary += f" {format_rate(assessment.growth_bytes_per_second)}"
    reaches = assessment.time_to_limit
    if reaches is not None and assessment.limit_bytes is not None:
        summary += (
            f" and reaches its limit of {format_limit(assessment.limit_bytes)} in {format_duration(reaches.estimate)}"
        )
    if assessment.suspects:
        summary += f"; first suspect: {_named(assessment.suspects[0])}"
    return summary, _description(assessment)


def limit_near(assessment: Assessment, state: AlertState, *, gone: bool) -> tuple[str, str]:
    """Summary and description of ``memory_limit_near``."""
    name = assessment.process.service_name
    if state is AlertState.RESOLVED:
        return _resolved(assessment, f"{name} is no longer near its limit", gone)
    summary = f"{name} is near its limit"
    if assessment.limit_bytes is not None:
        summary += f" of {format_limit(assessment.limit_bytes)}"
    used, reaches = assessment.utilization, assessment.time_to_limit
    figures = [] if used is None else [f"{format_share(used)} in use"]
    if reaches is not None:
        figures.append(f"reached in {format_duration(reaches.estimate)}")
    if figures:
        summary += f": {', '.join(figures)}"
    return summary, _description(assessment)


def labels_of(name: str, severity: str, assessment: Assessment) -> dict[str, str]:
    """What the alert is about; stays the same over the life of the process."""
    process = assessment.process
    found = {
        "alertname": name,
        "severity": severity,
        "process_id": process.id,
        "service_name": process.service_name,
        "service_version": process.service_version,
        "service_instance_id": process.service_instance_id,
        "host_name": process.host_name,
    }
    return {key: value for key, value in found.items() if value is not None}


def annotations_of(summary: str, description: str, assessment: Assessment) -> dict[str, str]:
    """What was measured when the alert changed; numbers in bytes and seconds."""
    reaches = assessment.time_to_limit
    found = {
        "summary": summary,
        "description": description,
        "leak_score": None if assessment.leak_score is None else f"{assessment.leak_score:.3f}",
        "growth_bytes_per_second": _whole(assessment.growth_bytes_per_second),
        "time_to_limit_seconds": None if reaches is None else _whole(reaches.estimate),
        "memory_bytes": _whole(assessment.memory_bytes),
        "limit_bytes": _whole(assessment.limit_bytes),
        "first_suspect": f"{assessment.suspects[0].kind}:{assessment.suspects[0].name}"
        if assessment.suspects
        else None,
    }
    return {key: value for key, value in found.items() if value is not None}


def _resolved(assessment: Assessment, ended: str, gone: bool) -> tuple[str, str]:
    if not gone:
        return ended, _description(assessment)
    process = assessment.process
    summary = f"{process.service_name} is gone"
    used = assessment.utilization
    if used is not None and used >= 0.9:
        # It can't be known from here what ended it.
        summary += f"; it was last seen with {format_share(used)} of its limit in use and may have been ended by it"
    return summary, _description(assessment)


def _description(assessment: Assessment) -> str:
    process = assessment.process
    who = process.service_name
    marks = [
        text
        for text in (
            f"instance {process.service_instance_id}" if process.service_instance_id else None,
            f"host {process.host_name}" if process.host_name else None,
            f"pid {process.pid}" if process.pid is not None else None,
        )
        if text
    ]
    if marks:
        who += f" ({', '.join(marks)})"
    sentences = [f"{who}{_use(assessment)}."]
    reaches = assessment.time_to_limit
    if reaches is not None:
        high = f"to {format_duration(reaches.high)}" if reaches.high is not None else "or later"
        estimate, low = format_duration(reaches.estimate), format_duration(reaches.low)
        sentences.append(f"It reaches the limit in about {estimate} ({low} {high}).")
    sentences += [_sentence(reason) for reason in assessment.reasons]
    sentences += [_sentence(f"{_named(one)}: {one.evidence}") for one in assessment.suspects[:3]]
    return " ".join(sentences)


def _use(assessment: Assessment) -> str:
    if assessment.memory_bytes is None:
        return ": use of memory unknown"
    text = f" uses {format_bytes(assessment.memory_bytes)}"
    used = assessment.utilization
    if used is not None and assessment.limit_bytes is not None:
        text += f", {format_share(used)} of its limit of {format_limit(assessment.limit_bytes)}"
    return text


def _named(suspect: Suspect) -> str:
    return f"{suspect.kind} {suspect.name}"


def _sentence(text: str) -> str:
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _whole(value: float | None) -> str | None:
    return None if value is None else f"{value:.0f}"
