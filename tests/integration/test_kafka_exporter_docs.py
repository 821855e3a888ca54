"""``docs/kafka-exporter.md`` by copy and paste: each section in one shell, with the real parts."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.harness import Kafka, free_port
from tests.harness.collector import _program as collector_program
from tests.harness.prometheus import _folder as prometheus_folder
from tests.parts.debian import PrometheusRecipe
from tests.test_walk import Command, Section, run, sections

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "kafka-exporter.md"
SECTIONS = {section.heading: section for section in sections(PAGE.stem, PAGE.read_text("utf-8"))}
DIRECT, COLLECTOR, PROMETHEUS = (
    "Application → Kafka → analyzer",
    "Application → Collector → Kafka → analyzer",
    "Kafka → Collector → Prometheus",
)


def here(section: Section, kafka: Kafka, folder: Path) -> Section:
    """The section with the ports of this test and its programs by the names that the page calls them."""
    programs = folder / "bin"
    programs.mkdir()
    (programs / "otelcol-contrib").symlink_to(collector_program())
    (programs / "prometheus").symlink_to(prometheus_folder() / PrometheusRecipe.program)
    ports = {"9092": str(kafka.port), **{port: str(free_port()) for port in ("4318", "9464", "9090")}}

    def moved(text: str) -> str:
        return re.sub(r"127\.0\.0\.1:(\d+)", lambda found: f"127.0.0.1:{ports[found[1]]}", text)

    api = free_port()
    settings = {
        "PATH": f"{programs}:$PATH",
        "OTEL_MEMORY_HTTP_PORT": api,
        "OTEL_MEMORY_URL": f"http://127.0.0.1:{api}",
        "OTLP_GRPC_LISTEN": f"127.0.0.1:{free_port()}",
        "OTLP_HTTP_LISTEN": f"127.0.0.1:{ports['4318']}",
        "HEALTH_LISTEN": f"127.0.0.1:{free_port()}",
        "PROMETHEUS_LISTEN": f"127.0.0.1:{ports['9464']}",
        "TELEMETRY_PORT": free_port(),
    }
    exports = "".join(f'export {name}="{value}"\n' for name, value in settings.items())
    commands = [Command(moved(each.script), each.expected) for each in section.commands]
    commands[0].script = f"{exports}ln -s '{ROOT / 'collector-config'}' collector-config\n{commands[0].script}"
    files = {name: moved(content) for name, content in section.files.items()}
    return Section(section.page, section.heading, files, commands)


def test_every_section_with_commands_is_run_here() -> None:
    assert set(SECTIONS) == {DIRECT, COLLECTOR, PROMETHEUS}


@pytest.mark.needs("kafka", "collector", "prometheus")
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_each_section_does_what_it_says(tmp_path: Path) -> None:
    """At the same time, each with a broker of its own: most of it is waiting for a verdict."""

    def one(number: int, section: Section) -> None:
        folder = tmp_path / str(number)
        folder.mkdir()
        with Kafka() as kafka:
            run(here(section, kafka, folder), folder, timeout_seconds=200)

    with ThreadPoolExecutor() as pool:
        runs = [pool.submit(one, number, section) for number, section in enumerate(SECTIONS.values())]
        for each in runs:
            each.result()
