"""A real Prometheus Alertmanager (API v2) on a free loopback port."""

from __future__ import annotations

from typing import Any

from tests.harness.net import LOOPBACK, fetch, fetch_json, free_port
from tests.harness.part import Launch, Part
from tests.parts.debian import AlertmanagerRecipe

CONFIG = """\
route: {receiver: nobody, group_wait: 0s, group_interval: 1s, repeat_interval: 1h}
receivers: [{name: nobody}]
"""


class Alertmanager(Part):
    """``config`` is its YAML; the default keeps every alert and tells nobody."""

    name = "alertmanager"

    def __init__(self, config: str = CONFIG) -> None:
        super().__init__()
        self._config = config
        self.port = 0

    @property
    def url(self) -> str:
        """Address without a slash at the end."""
        return f"http://{LOOPBACK}:{self.port}"

    def alerts(self) -> list[dict[str, Any]]:
        """What it holds at this moment, by API v2."""
        alerts: list[dict[str, Any]] = fetch_json(f"{self.url}/api/v2/alerts")
        return alerts

    def launch(self) -> Launch:
        folder = AlertmanagerRecipe().locate()
        assert folder is not None, "Alertmanager was not fetched: mark the test with needs('alertmanager')"
        self.port = free_port()
        config = self.folder / "alertmanager.yml"
        config.write_text(self._config)
        return Launch(
            [
                str(folder / AlertmanagerRecipe.program),
                f"--config.file={config}",
                f"--storage.path={self.folder / 'data'}",
                f"--web.listen-address={LOOPBACK}:{self.port}",
                "--cluster.listen-address=",  # alone: no gossip port
            ],
            cwd=folder,  # where its templates are; it writes nothing there
        )

    def ready(self) -> bool:
        return bool(fetch(f"{self.url}/-/ready", timeout_seconds=1.0))
