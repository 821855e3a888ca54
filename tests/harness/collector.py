"""The real OpenTelemetry Collector on free loopback ports, with a configuration of ours."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.harness.net import LOOPBACK, fetch, free_port
from tests.harness.part import Launch, Part
from tests.harness.process import clean_environment
from tests.parts.collector import CollectorRecipe


def _program() -> Path:
    folder = CollectorRecipe().locate()
    assert folder is not None, "the Collector was not fetched: mark the test with needs('collector')"
    return folder / CollectorRecipe.program


class Collector(Part):
    """``config`` is a file or YAML text, which takes its addresses from the environment as ``collector-config/`` does.

    ``OTLP_GRPC_LISTEN``, ``OTLP_HTTP_LISTEN``, ``HEALTH_LISTEN`` and ``TELEMETRY_PORT`` are set to free ports; the
    configuration must have a health_check extension on ``HEALTH_LISTEN``, which is what readiness asks. A stopped
    Collector that is started again keeps its ports, so that its senders find it.
    """

    name = "collector"

    def __init__(
        self, config: Path | str, env: Mapping[str, str] | None = None, additions: Sequence[Path] = ()
    ) -> None:
        """``additions`` are files that the Collector merges into ``config``."""
        super().__init__()
        self._config = config
        self._additions = additions
        self._env = dict(env or {})
        self.grpc_port = self.http_port = self.health_port = self.telemetry_port = 0
        self._was_ready = False

    @property
    def grpc_endpoint(self) -> str:
        """For ``OTEL_EXPORTER_OTLP_ENDPOINT`` with gRPC."""
        return f"http://{LOOPBACK}:{self.grpc_port}"

    @property
    def http_endpoint(self) -> str:
        """For ``OTEL_EXPORTER_OTLP_ENDPOINT`` with http/protobuf."""
        return f"http://{LOOPBACK}:{self.http_port}"

    def metrics_text(self) -> str:
        """The Collector's own metrics, in Prometheus' text form."""
        return fetch(f"http://{LOOPBACK}:{self.telemetry_port}/metrics").decode()

    def launch(self) -> Launch:
        if not self._was_ready:
            self.grpc_port, self.http_port = free_port(), free_port()
            self.health_port, self.telemetry_port = free_port(), free_port()
        config = self._config
        if isinstance(config, str):
            text, config = config, self.folder / "config.yaml"
            config.write_text(text)
        env = {
            "OTLP_GRPC_LISTEN": f"{LOOPBACK}:{self.grpc_port}",
            "OTLP_HTTP_LISTEN": f"{LOOPBACK}:{self.http_port}",
            "HEALTH_LISTEN": f"{LOOPBACK}:{self.health_port}",
            "TELEMETRY_PORT": str(self.telemetry_port),
            **self._env,
        }
        return Launch([str(_program()), *_flags(config, *self._additions)], env)

    def ready(self) -> bool:
        fetch(f"http://{LOOPBACK}:{self.health_port}/", timeout_seconds=1.0)
        self._was_ready = True
        return True


def _flags(*configs: Path) -> list[str]:
    return [word for config in configs for word in ("--config", str(config))]


def validate(config: Path, env: Mapping[str, str], *additions: Path) -> None:
    """Let the Collector itself check a configuration. Raises `AssertionError` with its words."""
    done = subprocess.run(
        [str(_program()), "validate", *_flags(config, *additions)],
        env=clean_environment(env),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, f"{config.name} is not valid:\n{done.stdout}{done.stderr}"
