"""A real Prometheus on a free loopback port, and promtool."""

from __future__ import annotations

import subprocess
import urllib.parse
from pathlib import Path
from typing import Any

from tests.harness.net import LOOPBACK, fetch, fetch_json, free_port
from tests.harness.part import Launch, Part
from tests.harness.process import clean_environment
from tests.parts.debian import PrometheusRecipe


def _folder() -> Path:
    folder = PrometheusRecipe().locate()
    assert folder is not None, "Prometheus was not fetched: mark the test with needs('prometheus')"
    return folder


class Prometheus(Part):
    """Scrapes ``targets`` (``host:port``) each second; ``rules`` is the YAML of a rule file."""

    name = "prometheus"

    def __init__(self, *targets: str, rules: str | None = None) -> None:
        super().__init__()
        self._targets = targets
        self._rules = rules
        self.port = 0

    @property
    def url(self) -> str:
        """Address without a slash at the end."""
        return f"http://{LOOPBACK}:{self.port}"

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Result of an instant query."""
        reply = fetch_json(f"{self.url}/api/v1/query?{urllib.parse.urlencode({'query': expression})}")
        result: list[dict[str, Any]] = reply["data"]["result"]
        return result

    def launch(self) -> Launch:
        self.port = free_port()
        config = self.folder / "prometheus.yml"
        targets = ", ".join(f'"{target}"' for target in self._targets)
        lines = ["global: {scrape_interval: 1s, evaluation_interval: 1s}"]
        if self._rules is not None:
            (self.folder / "rules.yml").write_text(self._rules)
            lines.append("rule_files: [rules.yml]")
        lines.append(f"scrape_configs: [{{job_name: test, static_configs: [{{targets: [{targets}]}}]}}]")
        config.write_text("\n".join(lines) + "\n")
        return Launch(
            [
                str(_folder() / PrometheusRecipe.program),
                f"--config.file={config}",
                f"--storage.tsdb.path={self.folder / 'data'}",
                f"--web.listen-address={LOOPBACK}:{self.port}",
            ]
        )

    def ready(self) -> bool:
        return bool(fetch(f"{self.url}/-/ready", timeout_seconds=1.0))


def promtool(*arguments: str, stdin: str | None = None) -> str:
    """Output of one promtool call (``check metrics`` reads ``stdin``). Raises `AssertionError` with its words."""
    done = subprocess.run(
        [str(_folder() / "usr/bin/promtool"), *arguments],
        input=stdin,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, f"promtool {' '.join(arguments)}:\n{done.stdout}{done.stderr}"
    return done.stdout
