"""Finds the one process that a person means. Asks through the client; never formats more than a choice."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

from otel_memory.clients.api_client import PAGE, ApiClient, ClientError, Json
from otel_memory.clients.replies import Process, read_process
from otel_memory.humanize import printable

_MAX_QUERY: Final = 200
_MAX_CHOICES: Final = 20


def find_process(client: ApiClient, wanted: str) -> Json:
    """The answer about the process with this id, or the only one whose service or instance is called so, or whose id
    begins so.

    Raises:
        ClientError: there is none, or more than one, or the analyzer can't be asked.
    """
    name = wanted.strip()
    if not name:
        raise ClientError("which process? Give its id or its service's name\n  `otel-memory leaks --all` lists them")
    # Dots alone would be folded away as a path; the list below finds a service that is called so.
    if name.strip("."):
        exact = client.get(_path(name))
        if exact is not None:
            return exact
    # The analyzer looks for the text anywhere; what is meant is narrower.
    listed = client.items("/api/v1/processes", {"q": name[:_MAX_QUERY], "limit": PAGE})
    found = [(process, raw) for raw in listed for process in (read_process(raw),)]
    called_so = [(p, raw) for p, raw in found if printable(name) in (p.service, p.instance)]
    matches = called_so or [(p, raw) for p, raw in found if p.id.startswith(name)]
    if not matches:
        raise ClientError(f"no process is called {printable(name)!r}\n  `otel-memory leaks --all` lists them")
    if len(matches) > 1:
        raise ClientError(_choice(name, [process for process, _ in matches]))
    process, raw = matches[0]
    # The list tells less of a process than its own address; it may have gone in between.
    return client.get(_path(process.id)) or raw


def _path(process_id: str) -> str:
    return f"/api/v1/processes/{quote(process_id, safe='')}"


def _choice(name: str, processes: list[Process]) -> str:
    lines = [f"{printable(name)!r} could be {len(processes)} processes; name one by its id:"]
    for p in processes[:_MAX_CHOICES]:
        where = " ".join(part for part in (p.host, None if p.pid is None else f"pid {p.pid}", p.instance) if part)
        lines.append(f"  {p.id}  {p.verdict:<8}  {p.service}  {where}".rstrip())
    if len(processes) > _MAX_CHOICES:
        lines.append(f"  and {len(processes) - _MAX_CHOICES} more: otel-memory leaks --all")
    return "\n".join(lines)
