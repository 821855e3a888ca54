"""Who a process is, from the attributes of its resource.

Owns the rule that turns a resource into a process id. The id depends on identifying attributes alone, so it is
the same over restarts of the analyzer, on every path (direct, Collector, Kafka), and whatever volatile
attributes (versions, command lines, labels, SDK details) come, go or change. Never looks at points.

The rule, first match wins:

1. ``service.instance.id`` is present: service.namespace, service.name, service.instance.id. The conventions
   promise that these three are unique.
2. Something else tells instances apart: service.namespace, service.name, the first of ``k8s.pod.uid`` (with
   ``k8s.container.name``), ``container.id``, ``host.id``, ``host.name``, and ``process.pid`` if present. A host or a
   pod without a service, a container or a process number is a machine, not a process: nothing is identified.
3. ``service.name`` alone (with service.namespace): one process is assumed.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Final

from otel_memory import names
from otel_memory.analyzer.model import AttributeValue, ProcessInfo

Resource = Mapping[str, AttributeValue]

_PLACES: Final = ("k8s.pod.uid", "container.id", "host.id", names.HOST_NAME)
_CONTAINER_NAME: Final = "k8s.container.name"
_SERVICE: Final = (names.SERVICE_NAMESPACE, names.SERVICE_NAME)
# What to call a process whose resource has no service.name: the Collector's own receivers don't set one.
_OTHER_NAMES: Final = (
    "k8s.deployment.name",
    "k8s.statefulset.name",
    "k8s.daemonset.name",
    _CONTAINER_NAME,
    "container.name",
    "process.executable.name",
    "k8s.pod.name",
)
_UNKNOWN_SERVICE: Final = "unknown_service"
_PID_DIGITS: Final = 10
"""No system's process numbers are longer (they fit into 32 bits)."""


def digest(*parts: str) -> str:
    """16 hex digits of BLAKE2b over the parts; a part's length is hashed too, so that no two lists collide."""
    hashed = blake2b(digest_size=8)
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        hashed.update(b"%d:" % len(data))
        hashed.update(data)
    return hashed.hexdigest()


class KnownResource(dict[str, AttributeValue]):
    """A resource as it was read once, handed out for every request that carries the same one: nobody may change it.
    Remembers which process it stands for."""

    __slots__ = ("info",)

    def __init__(self, attributes: Resource) -> None:
        super().__init__(attributes)
        self.info: Final = _identified(attributes)


def identify(resource: Resource) -> ProcessInfo | None:
    """The process that a resource stands for, or None where nothing in it identifies one."""
    return resource.info if isinstance(resource, KnownResource) else _identified(resource)


def _identified(resource: Resource) -> ProcessInfo | None:
    keys = _identifying_keys(resource)
    if not keys:
        return None
    parts = [part for key in keys for part in (key, _text(resource, key) or "")]
    return ProcessInfo(
        id=digest(*parts),
        service_name=_service_name(resource),
        service_version=_text(resource, names.SERVICE_VERSION),
        service_instance_id=_text(resource, names.SERVICE_INSTANCE_ID),
        host_name=_text(resource, names.HOST_NAME),
        pid=pid_of(resource),
        runtime=runtime_of(resource),
    )


def pid_of(attributes: Resource) -> int | None:
    """``process.pid`` as a number, also where it came as text."""
    text = _text(attributes, names.PROCESS_PID)
    if text is None or len(text) > _PID_DIGITS or not (text.isascii() and text.isdigit()):
        return None
    return int(text)


def runtime_of(attributes: Resource) -> str | None:
    """Name and version of the language runtime (``CPython 3.12.4``), or the SDK's language (``java``)."""
    name = _text(attributes, names.PROCESS_RUNTIME_NAME) or _text(attributes, "telemetry.sdk.language")
    version = _text(attributes, names.PROCESS_RUNTIME_VERSION)
    if name is None:
        return None
    return f"{name} {version}" if version is not None else name


def _identifying_keys(resource: Resource) -> tuple[str, ...]:
    if _text(resource, names.SERVICE_INSTANCE_ID) is not None:
        return (*_SERVICE, names.SERVICE_INSTANCE_ID)
    named = _text(resource, names.SERVICE_NAME) is not None
    has_pid = _text(resource, names.PROCESS_PID) is not None
    for place in _PLACES:
        if _text(resource, place) is None:
            continue
        contained = place == "container.id" or _text(resource, _CONTAINER_NAME) is not None
        if not (named or has_pid or contained):
            return ()
        finer = (_CONTAINER_NAME,) if place == "k8s.pod.uid" else ()
        return (*_SERVICE, place, *finer, *((names.PROCESS_PID,) if has_pid else ()))
    if named:
        return (*_SERVICE, names.PROCESS_PID) if has_pid else _SERVICE
    return ()


def _service_name(resource: Resource) -> str:
    for key in (names.SERVICE_NAME, *_OTHER_NAMES):
        text = _text(resource, key)
        if text is not None:
            return text
    return _UNKNOWN_SERVICE


def _text(attributes: Resource, key: str) -> str | None:
    """The value as text, None where it is absent or blank: a blank value identifies nothing."""
    value = attributes.get(key)
    if value is None:
        return None
    if type(value) is float and value.is_integer():
        value = int(value)
    text = str(value).strip()
    return text or None
