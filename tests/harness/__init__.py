"""Starts the real parts for tests: free loopback ports, own folder, own log, and an end that is certain.

``from tests.harness import Analyzer, Chromium, Collector, Program, free_port, wait_until``. A test that needs a
fetched part is marked ``@pytest.mark.needs("collector")`` (see ``tests/conftest.py``).
"""

from tests.harness.alertmanager import Alertmanager
from tests.harness.analyzer import Analyzer
from tests.harness.chromium import Chromium
from tests.harness.collector import Collector, validate
from tests.harness.kafka import Kafka
from tests.harness.net import fetch, fetch_json, free_port
from tests.harness.part import Part, PartFailed, Program
from tests.harness.prometheus import Prometheus, promtool
from tests.harness.waiting import wait_until

__all__ = [
    "Alertmanager",
    "Analyzer",
    "Chromium",
    "Collector",
    "Kafka",
    "Part",
    "PartFailed",
    "Program",
    "Prometheus",
    "fetch",
    "fetch_json",
    "free_port",
    "promtool",
    "validate",
    "wait_until",
]
