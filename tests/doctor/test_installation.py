"""What is installed: read from made-up packages, so that each fault can be shown alone."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from otel_memory.doctor import installation
from otel_memory.doctor.report import Finding
from otel_memory.doctor.routes import check_routes
from tests.doctor.packages import Packages, packages  # noqa: F401

OURS = (
    "opentelemetry-api>=1.40",
    "opentelemetry-instrumentation>=0.61b0",
    "psutil>=7.2",
    'opentelemetry-sdk>=1.40; extra == "otlp"',
    'opentelemetry-distro>=0.61b0; extra == "otlp"',
    'opentelemetry-exporter-otlp>=1.40; extra == "otlp"',
    'numpy>=2; extra == "analyzer"',
    'opentelemetry-proto>=9; extra == "analyzer"',
)
GOOD = {
    "opentelemetry-api": "1.45.1",
    "opentelemetry-instrumentation": "0.66b1",
    "opentelemetry-sdk": "1.45.1",
    "opentelemetry-distro": "0.66b1",
    "opentelemetry-exporter-otlp": "1.45.1",
}


def install(packages: Packages, **versions: str | None) -> None:  # noqa: F811
    """Everything good but for ``versions`` (``_`` for ``-``, without the common prefix; None: not there)."""
    packages.add("otel-memory", "0.1.0", OURS)
    changed = {f"opentelemetry-{name.replace('_', '-')}": version for name, version in versions.items()}
    for name, version in {**GOOD, **changed}.items():
        if version is not None:
            packages.add(name, version)


def by_check(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.check: finding for finding in findings}


# --- floors ---------------------------------------------------------------------------------------------------


def test_all_there_and_new_enough_is_well(packages: Packages) -> None:  # noqa: F811
    install(packages)
    found = list(installation.check_floors())
    assert {f.check for f in found} == set(GOOD), "the base and the extra otlp, no other extra, nobody else's packages"
    assert {f.status for f in found} == {"ok"}


def test_the_distro_of_years_ago_that_resolvers_fall_back_to_is_too_old(packages: Packages) -> None:  # noqa: F811
    install(packages, distro="0.48b0")
    finding = by_check(list(installation.check_floors()))["opentelemetry-distro"]
    assert finding.status == "failure"
    assert finding.mend == "pip install 'opentelemetry-distro>=0.61b0'"


def test_without_the_distro_the_extra_is_named(packages: Packages) -> None:  # noqa: F811
    install(packages, distro=None)
    finding = by_check(list(installation.check_floors()))["opentelemetry-distro"]
    assert (finding.status, finding.mend) == ("failure", "pip install 'otel-memory[otlp]'")


def test_a_vendors_distro_stands_in_for_it(packages: Packages) -> None:  # noqa: F811
    install(packages, distro=None)
    packages.add("acme-otel", entry_points={"opentelemetry_configurator": {"acme": "acme:Configurator"}})
    finding = by_check(list(installation.check_floors()))["opentelemetry-distro"]
    assert finding.status == "note"
    assert "acme" in finding.detail


def test_without_the_sdk_is_a_failure_and_without_the_bundle_of_exporters_is_none(packages: Packages) -> None:  # noqa: F811
    install(packages, sdk=None, exporter_otlp=None)
    found = by_check(list(installation.check_floors()))
    assert found["opentelemetry-sdk"].status == "failure"
    assert "opentelemetry-exporter-otlp" not in found, "one of its two exporters alone is enough"


def test_packages_that_want_each_other_in_other_versions_are_told(packages: Packages) -> None:  # noqa: F811
    install(packages)
    packages.add("opentelemetry-instrumentation-flask", "0.66b2", ["opentelemetry-instrumentation==0.66b2", "flask>=1"])
    packages.add("opentelemetry-thing", "1", ['opentelemetry-sdk==9; extra == "never"', "opentelemetry-absent>=1"])
    (finding,) = installation.check_consistency()
    assert (finding.check, finding.status) == ("opentelemetry-instrumentation-flask", "warning")
    assert "wants opentelemetry-instrumentation==0.66b2, but 0.66b1 is there" in finding.detail


def test_the_environment_of_the_tests_is_consistent() -> None:
    assert list(installation.check_consistency()) == []


# --- launcher and probe ---------------------------------------------------------------------------------------


def launcher(folder: Path) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    script = folder / "opentelemetry-instrument"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    return str(script)


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An interpreter without a launcher beside it, and a PATH that is empty."""
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin" / "python"))
    monkeypatch.setattr("sysconfig.get_path", lambda *_: str(tmp_path / "none"))
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    return tmp_path


def test_no_launcher_anywhere_is_a_failure(elsewhere: Path) -> None:
    (finding,) = installation.check_launcher()
    assert (finding.status, finding.mend) == ("failure", "pip install 'otel-memory[otlp]'")


def test_a_launcher_of_another_environment_is_a_warning_that_names_it(elsewhere: Path) -> None:
    other = launcher(elsewhere / "path")
    (finding,) = installation.check_launcher()
    assert finding.status == "warning"
    assert other in finding.detail


def test_the_launcher_beside_the_interpreter_is_well(elsewhere: Path) -> None:
    launcher(elsewhere / "path")
    launcher(elsewhere / "bin")
    (finding,) = installation.check_launcher()
    assert finding.status == "ok"


def test_the_probes_entry_point_is_there_and_loads() -> None:
    (finding,) = installation.check_probe({})
    assert finding.status == "ok"


@pytest.mark.parametrize("value", ["otel_memory", "flask, otel_memory", "*"])
def test_a_probe_that_is_switched_off_is_a_failure(value: str) -> None:
    (finding,) = installation.check_probe({"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": value})
    assert finding.status == "failure"
    assert "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS" in finding.detail


def test_a_missing_entry_point_is_a_failure(packages: Packages) -> None:  # noqa: F811
    (finding,) = installation.check_probe({})
    assert (finding.status, finding.detail) == ("failure", "its entry point is missing")


def test_an_entry_point_that_can_not_be_loaded_is_a_failure_with_the_reason(packages: Packages) -> None:  # noqa: F811
    points = {"opentelemetry_instrumentor": {"otel_memory": "otel_memory.no_such_module:It"}}
    packages.add("otel-memory", entry_points=points)
    (finding,) = installation.check_probe({})
    assert finding.status == "failure"
    assert "ModuleNotFoundError" in finding.detail


# --- twice ----------------------------------------------------------------------------------------------------


def test_contribs_system_metrics_is_noted_and_can_be_switched_off(packages: Packages) -> None:  # noqa: F811
    assert [f.status for f in installation.check_twice({})] == ["ok"]
    packages.add("opentelemetry-instrumentation-system-metrics", "0.66b1")
    (beside,) = installation.check_twice({})
    assert beside.status == "note"
    assert "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS=system_metrics" in (beside.mend or "")
    (alone,) = installation.check_twice({"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "system_metrics"})
    assert alone.status == "ok"


# --- routes ---------------------------------------------------------------------------------------------------

OPTED_IN = {"OTEL_SEMCONV_STABILITY_OPT_IN": "http"}


def test_without_a_web_framework_operations_are_all_there_is(packages: Packages) -> None:  # noqa: F811
    assert [f.status for f in check_routes({})] == ["note"]


def test_a_framework_without_instrumentation_is_a_warning_with_the_floor_of_ours(packages: Packages) -> None:  # noqa: F811
    packages.add("otel-memory", "0.1.0", OURS)
    packages.add("flask")
    (finding,) = check_routes(OPTED_IN)
    assert finding.status == "warning"
    assert finding.mend == "pip install 'opentelemetry-instrumentation-flask>=0.61b0'"


@pytest.mark.parametrize("name", ["aiohttp", "tornado"])
def test_what_is_often_a_client_is_a_note(packages: Packages, name: str) -> None:  # noqa: F811
    packages.add(name)
    assert [f.status for f in check_routes(OPTED_IN)] == ["note"]


def test_an_instrumented_framework_is_well_only_under_the_stable_convention(packages: Packages) -> None:  # noqa: F811
    packages.add("fastapi")
    packages.add("starlette")
    packages.add("opentelemetry-instrumentation-fastapi")
    assert [f.status for f in check_routes(OPTED_IN)] == ["ok"], "starlette is there as a part of it"
    assert [f.status for f in check_routes({"OTEL_SEMCONV_STABILITY_OPT_IN": "database,http/dup"})] == ["ok"]
    (old,) = check_routes({})
    assert (old.status, old.mend) == ("warning", "OTEL_SEMCONV_STABILITY_OPT_IN=http")


def test_an_instrumentation_that_is_switched_off_is_a_warning(packages: Packages) -> None:  # noqa: F811
    packages.add("flask")
    packages.add("opentelemetry-instrumentation-flask")
    (finding,) = check_routes({**OPTED_IN, "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "flask"})
    assert finding.status == "warning"
    assert "switched off" in finding.detail
