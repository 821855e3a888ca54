"""The analyzer of this checkout as its own process, on free loopback ports and with a data folder of its own."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.harness.net import LOOPBACK, fetch, fetch_json, free_port
from tests.harness.part import Launch, Part


class Analyzer(Part):
    """``otel-memory serve``. After `kill` or `stop`, `start` again gives the same addresses and the same data."""

    name = "analyzer"
    python = sys.executable
    """Interpreter that runs it: the one of the tests, unless a test installs another."""

    def __init__(self, *arguments: str, env: Mapping[str, str] | None = None, data_dir: Path | None = None) -> None:
        super().__init__()
        self._arguments: Sequence[str] = arguments
        self._env = dict(env or {})
        self.data_dir = data_dir or self.folder / "data"
        self.grpc_port = self.http_port = self.api_port = 0
        self._was_ready = False

    @property
    def grpc_endpoint(self) -> str:
        """For ``OTEL_EXPORTER_OTLP_ENDPOINT`` with gRPC."""
        return f"http://{LOOPBACK}:{self.grpc_port}"

    @property
    def http_endpoint(self) -> str:
        """For ``OTEL_EXPORTER_OTLP_ENDPOINT`` with http/protobuf."""
        return f"http://{LOOPBACK}:{self.http_port}"

    @property
    def url(self) -> str:
        """Address of the page and of REST, without a slash at the end."""
        return f"http://{LOOPBACK}:{self.api_port}"

    def get(self, path: str) -> Any:
        """Decoded JSON of one GET, such as ``/api/v1/processes``."""
        return fetch_json(self.url + path)

    def launch(self) -> Launch:
        if not self._was_ready:
            self.grpc_port, self.http_port, self.api_port = free_port(), free_port(), free_port()
        ports = {"--otlp-grpc-port": self.grpc_port, "--otlp-http-port": self.http_port, "--http-port": self.api_port}
        argv = [self.python, "-m", "otel_memory", "serve", "--host", LOOPBACK, "--data-dir", str(self.data_dir)]
        for flag, port in ports.items():
            argv += [flag, str(port)]
        return Launch([*argv, *self._arguments], self._env)

    def ready(self) -> bool:
        fetch(f"{self.url}/readyz", timeout_seconds=1.0)
        self._was_ready = True
        return True
