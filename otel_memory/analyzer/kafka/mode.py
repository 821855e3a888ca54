"""The analyzer in Kafka mode: what ``serve --kafka-bootstrap`` has in the place of OTLP receivers and their worker.

Owns how these parts are built from the settings, and the order in which they start and stop.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final

from otel_memory.analyzer.config import Settings, clear
from otel_memory.analyzer.fleet_alerts import MEMORY_LEAK_GROUP, Groups
from otel_memory.analyzer.kafka.client import Connection, KafkaError, Topics
from otel_memory.analyzer.kafka.fleet import Fleet
from otel_memory.analyzer.kafka.group import GroupSettings, GroupWorker
from otel_memory.analyzer.kafka.leader import Leader
from otel_memory.analyzer.kafka.records import Owner
from otel_memory.analyzer.kafka.refusal import Refusal
from otel_memory.analyzer.kafka.shared_groups import SharedGroups
from otel_memory.analyzer.kafka.shared_silences import SharedSilences
from otel_memory.analyzer.kafka.topics import DEFAULT_PARTITIONS, create, problems
from otel_memory.analyzer.keeper import Keeper
from otel_memory.analyzer.model import Alert, Assessment
from otel_memory.analyzer.outputs.base import AlertChange
from otel_memory.analyzer.receivers.base import ReceiverError
from otel_memory.analyzer.silences import Silences
from otel_memory.analyzer.stats import Stats
from otel_memory.analyzer.store import Store
from otel_memory.analyzer.view import View

STOP_SECONDS: Final = 4.0


def connection_of(settings: Settings) -> Connection:
    """How the settings say that the cluster is reached."""
    security: dict[str, Any] = {"security_protocol": settings.kafka_security_protocol}
    if settings.kafka_security_protocol.startswith("SASL"):
        security |= {
            "sasl_mechanism": settings.kafka_sasl_mechanism,
            "sasl_plain_username": settings.kafka_sasl_username,
            "sasl_plain_password": clear(settings.kafka_sasl_password),
        }
    if settings.kafka_security_protocol.endswith("SSL"):
        files = {
            "ssl_cafile": settings.kafka_ssl_cafile,
            "ssl_certfile": settings.kafka_ssl_certfile,
            "ssl_keyfile": settings.kafka_ssl_keyfile,
        }
        security |= {name: None if path is None else str(path) for name, path in files.items()}
    return Connection(settings.kafka_bootstrap, f"otel-memory-{settings.kafka_group}", security)


def topics_of(settings: Settings) -> Topics:
    """The topics' names."""
    return Topics(
        settings.kafka_metrics_topic,
        settings.kafka_logs_topic,
        settings.kafka_alerts_topic,
        settings.kafka_assessments_topic,
        settings.kafka_dead_letter_topic,
    )


class KafkaMode:
    """``check`` the topics, build what asks for ``checks``, ``gauges`` and ``owner``, ``start``, ``stop``."""

    def __init__(self, settings: Settings, view: View, stats: Stats, silences: Silences, groups: Groups) -> None:
        self._settings = settings
        self._view = view
        self._stats = stats
        self._connection = connection_of(settings)
        self._topics = topics_of(settings)
        self._silences = SharedSilences(self._connection, self._topics.assessments, silences)
        self._groups = SharedGroups(groups)
        self._fleet = Fleet(self._connection, self._topics.assessments, view, stats, self._silences, self._groups)
        self._worker: GroupWorker | None = None
        self.instance = ""

    def check(self) -> None:
        """Make the topics if that is allowed, and look at them. Blocks.

        Raises:
            ReceiverError: the cluster can't be reached, or a topic is missing.
        """
        settings = self._settings
        servers = ",".join(settings.kafka_bootstrap)
        refusal = Refusal(self._connection.login)
        try:
            with refusal:
                found = self._problems()
        except KafkaError as error:
            raise ReceiverError(f"--kafka-bootstrap {servers}: {refusal.explain(error)}") from error
        if found:
            raise ReceiverError("\n".join(f"--kafka-bootstrap {servers}: {one}" for one in found))

    def _problems(self) -> list[str]:
        settings = self._settings
        if settings.kafka_create_topics:
            create(
                self._connection,
                self._topics,
                window_seconds=settings.kafka_window_seconds,
                partitions=DEFAULT_PARTITIONS,
            )
        return problems(self._connection, self._topics, settings.kafka_window_seconds)

    def start(
        self,
        port: int,
        store: Store,
        outputs: Sequence[str],
        on_change: Callable[[Sequence[AlertChange], bool], None],
    ) -> None:
        """``port`` is that of REST; ``store``, ``outputs`` and ``on_change`` as the pipeline has them."""
        settings = self._settings
        self.instance = settings.kafka_instance or f"{socket.gethostname()}-{port}"
        # Bound to every address it says none that others could use.
        name = socket.gethostname() if settings.host in ("0.0.0.0", "::") else settings.host
        host = f"[{name}]" if ":" in name else name
        owner = Owner(self.instance, settings.kafka_advertised_url or f"http://{host}:{port}")
        self._fleet.start()
        self._worker = GroupWorker(
            self._connection,
            self._topics,
            GroupSettings(
                settings.kafka_group,
                owner,
                window_seconds=settings.kafka_window_seconds,
                idle_seconds=settings.idle_seconds,
                session_seconds=settings.kafka_session_seconds,
                max_processes=settings.max_processes,
                alerting=settings.alerting,
            ),
            view=self._view,
            keeper=Keeper(store, outputs, self._stats),
            stats=self._stats,
            leader=Leader(self._fleet, self._groups, self._view, owner, settings.alerting),
            on_change=on_change,
        )
        self._worker.start()

    def stop(self) -> None:
        """Commit and end. Idempotent."""
        if self._worker is not None:
            self._worker.stop(STOP_SECONDS)
        self._fleet.stop(1.0)
        self._silences.close()

    @property
    def checks(self) -> Mapping[str, Callable[[], str | None]]:
        """The conditions of readiness."""
        return {
            "kafka": lambda: "does not run" if self._worker is None else self._worker.problem,
            "fleet": lambda: self._fleet.problem,
        }

    def gauges(self) -> dict[str, tuple[str, float]]:
        """For the page of metrics."""
        return {} if self._worker is None else self._worker.gauges()

    def elsewhere(self, process_id: str) -> str | None:
        """The address of the worker that has a process, where that is not this one."""
        owner = self._fleet.owner(process_id)
        return None if owner is None or owner.instance == self.instance else owner.url

    def tells(self, alert: Alert) -> bool:
        """Whether the outputs are told of an alert by this worker."""
        if alert.name != MEMORY_LEAK_GROUP:
            return self.elsewhere(alert.process) is None
        owner = self._groups.owner(alert.id)
        return owner is not None and owner.instance == self.instance

    def told(self, output: str, alert: Alert, change: str) -> None:
        """``output`` has got the change with the id ``change`` of ``alert``. From any thread."""
        if self._worker is not None:
            self._worker.telling.noted(output, alert, change)

    def own(self) -> Collection[Assessment]:
        """The judgements that are this worker's: figures that all of them send are sent once."""
        shown = self._view.state.processes.values()
        return [one for one in shown if self.elsewhere(one.process.id) is None]
