"""The settings of the environment, one fault at a time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from otel_memory.doctor import environment, exporters
from otel_memory.doctor.report import Finding
from otel_memory.probe.sources.limits import Limit, LimitsReading
from tests.doctor.packages import Packages, packages  # noqa: F401

MIB = 2**20
ROOT = Path(__file__).parents[2]


def one(findings: object) -> Finding:
    (finding,) = findings  # type: ignore[misc]
    return finding


# --- the probe's own settings ---------------------------------------------------------------------------------


def test_defaults_are_well() -> None:
    assert one(environment.check_settings({})).status == "ok"


def test_a_wrong_setting_is_a_failure_that_names_it() -> None:
    finding = one(environment.check_settings({"OTEL_PYTHON_MEMORY_INTERVAL": "soon"}))
    assert finding.status == "failure"
    assert "OTEL_PYTHON_MEMORY_INTERVAL='soon'" in finding.detail


def test_a_misspelt_setting_is_a_warning_with_the_right_name() -> None:
    unknown, well = environment.check_settings({"OTEL_PYTHON_MEMORY_LIMITS": "512MiB"})
    assert (unknown.status, well.status) == ("warning", "ok")
    assert "OTEL_PYTHON_MEMORY_LIMIT?" in unknown.detail


def test_a_disabled_sdk_is_a_failure() -> None:
    assert one(environment.check_settings({"OTEL_SDK_DISABLED": "True"})).status == "failure"


def test_events_that_go_nowhere_are_noted() -> None:
    _, events = environment.check_settings({"OTEL_PYTHON_MEMORY_EVENTS": "none"})
    assert (events.check, events.status) == ("events", "note")


# --- interval -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "status", "words"),
    [
        ("", "note", "60 s: a verdict takes about 40 min"),
        ("5000", "ok", "5 s: a verdict takes about 3 min"),
        ("1000", "ok", "1 s: a verdict takes about 60 s"),
        ("0", "failure", "exports nothing"),
        ("-5", "failure", "exports nothing"),
        ("inf", "failure", "exports nothing"),
        ("nan", "failure", "exports nothing"),
    ],
)
def test_the_interval_tells_how_long_a_verdict_takes(text: str, status: str, words: str) -> None:
    finding = one(environment.check_interval({"OTEL_METRIC_EXPORT_INTERVAL": text}))
    assert finding.status == status
    assert words in finding.detail


def test_an_interval_that_is_no_number_is_the_default_for_the_sdk() -> None:
    wrong, told = environment.check_interval({"OTEL_METRIC_EXPORT_INTERVAL": "5s"})
    assert (wrong.status, told.status) == ("warning", "note")
    assert "one sample every 60 s" in told.detail


# --- service and instance -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "environ",
    [
        {"OTEL_SERVICE_NAME": "shop"},
        {"OTEL_RESOURCE_ATTRIBUTES": "deployment.environment=prod, service.name=shop"},
        {"OTEL_RESOURCE_ATTRIBUTES": "service.name=sh%6Fp"},
    ],
)
def test_a_name_from_either_variable_is_well(environ: dict[str, str]) -> None:
    finding = one(environment.check_service(environ))
    assert (finding.status, finding.detail) == ("ok", "shop")


def test_a_service_without_a_name_is_a_warning() -> None:
    assert one(environment.check_service({})).status == "warning"


def test_one_instance_id_for_all_processes_is_noted() -> None:
    environ = {"OTEL_SERVICE_NAME": "shop", "OTEL_RESOURCE_ATTRIBUTES": "service.instance.id=web"}
    _, instance = environment.check_service(environ)
    assert instance.status == "note"
    assert "taken for the same" in instance.detail


def test_an_sdk_that_gives_no_instance_ids_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    import opentelemetry.sdk.resources

    monkeypatch.delattr(opentelemetry.sdk.resources, "ServiceInstanceIdResourceDetector")
    _, instance = environment.check_service({"OTEL_SERVICE_NAME": "shop"})
    assert (instance.check, instance.status) == ("instance", "warning")


# --- exporters ------------------------------------------------------------------------------------------------


def failed(environ: dict[str, str], *, events: bool = True) -> dict[str, Finding]:
    found = exporters.check_exporters(environ, events=events)
    return {finding.check: finding for finding in found if finding.status != "ok"}


def test_the_defaults_are_well() -> None:
    assert failed({}) == {}


@pytest.mark.parametrize("value", ["none", "None", "", " none "])
def test_no_exporter_of_metrics_is_a_failure_and_of_logs_a_warning(value: str) -> None:
    """A variable that is set to nothing keeps the distro from its default: that is none, not otlp."""
    found = failed({"OTEL_METRICS_EXPORTER": value, "OTEL_LOGS_EXPORTER": value, "OTEL_TRACES_EXPORTER": value})
    assert {name: finding.status for name, finding in found.items()} == {
        "OTEL_METRICS_EXPORTER": "failure",
        "OTEL_LOGS_EXPORTER": "warning",
    }


def test_no_exporter_of_logs_matters_only_where_events_leave() -> None:
    assert failed({"OTEL_LOGS_EXPORTER": "none"}, events=False) == {}


@pytest.mark.parametrize("signal", ["METRICS", "LOGS", "TRACES"])
def test_an_exporter_that_is_not_installed_is_a_failure_whatever_its_signal(signal: str) -> None:
    """The SDK then sets up none of them."""
    found = failed({f"OTEL_{signal}_EXPORTER": "otlp,zipkin_of_old"})
    assert [finding.status for finding in found.values()] == ["failure"]
    assert "zipkin_of_old" in found[f"OTEL_{signal}_EXPORTER"].detail
    assert "console" in (found[f"OTEL_{signal}_EXPORTER"].mend or ""), "what there is, is listed"


def test_none_beside_another_is_an_exporter_that_does_not_exist() -> None:
    assert failed({"OTEL_METRICS_EXPORTER": "none,otlp"})["OTEL_METRICS_EXPORTER"].status == "failure"


def test_without_the_otlp_exporters_the_extra_is_named(packages: Packages) -> None:  # noqa: F811
    found = failed({})
    assert {finding.status for finding in found.values()} == {"failure"}
    assert {finding.mend for finding in found.values()} == {"pip install 'otel-memory[otlp]'"}


def test_a_protocol_that_python_does_not_speak_is_a_failure() -> None:
    found = failed({"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"})
    assert {finding.status for finding in found.values()} == {"failure"}
    assert found["OTEL_METRICS_EXPORTER"].mend == "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf"


def test_the_console_alone_reaches_no_analyzer() -> None:
    finding = failed({"OTEL_METRICS_EXPORTER": "console"})["OTEL_METRICS_EXPORTER"]
    assert (finding.status, finding.mend) == ("warning", "OTEL_METRICS_EXPORTER=console,otlp")


def test_two_otlp_exporters_send_the_same_twice() -> None:
    finding = failed({"OTEL_METRICS_EXPORTER": "otlp,otlp_proto_http"})["OTEL_METRICS_EXPORTER"]
    assert finding.status == "warning"
    assert "twice" in finding.detail
    assert failed({"OTEL_METRICS_EXPORTER": "otlp,otlp_proto_grpc"}) == {}, "those two are one and the same"


# --- a file configures the SDK --------------------------------------------------------------------------------


def test_a_configuration_file_needs_its_package(packages: Packages) -> None:  # noqa: F811
    finding = one(exporters.check_config_file({"OTEL_CONFIG_FILE": "sdk.yaml"}))
    assert (finding.status, finding.mend) == ("failure", "pip install opentelemetry-configuration")


def test_a_configuration_file_must_be_readable(packages: Packages, tmp_path: Path) -> None:  # noqa: F811
    packages.add("opentelemetry-configuration")
    missing = one(exporters.check_config_file({"OTEL_CONFIG_FILE": str(tmp_path / "sdk.yaml")}))
    assert missing.status == "failure"
    (tmp_path / "sdk.yaml").write_text("file_format: '1.0'\n")
    there = one(exporters.check_config_file({"OTEL_CONFIG_FILE": str(tmp_path / "sdk.yaml")}))
    assert there.status == "note"
    assert "reads no other variable" in there.detail


# --- limit ----------------------------------------------------------------------------------------------------


def limits(*found: tuple[int, str], high: int | None = None) -> LimitsReading:
    all_of_them = tuple(Limit(size, kind) for size, kind in found)  # type: ignore[arg-type]
    smallest = min(all_of_them, key=lambda limit: limit.limit_bytes, default=None)
    return LimitsReading(
        limit_bytes=smallest.limit_bytes if smallest else None,
        kind=smallest.kind if smallest else None,
        limits=all_of_them,
        high_bytes=high,
    )


@pytest.mark.parametrize(
    ("reading", "statuses", "words"),
    [
        (limits(), ["warning"], "none was found"),
        (limits((8 * 2**30, "host")), ["note"], "8 GiB, the whole host"),
        (limits((512 * MIB, "cgroup_v2"), (8 * 2**30, "host")), ["ok"], "512 MiB, set by the container (cgroup v2)"),
        (limits((512 * MIB, "cgroup_v2"), high=400 * MIB), ["ok", "note"], "set by the container"),
        (limits((256 * MIB, "configured"), (512 * MIB, "cgroup_v1")), ["ok", "note"], "OTEL_PYTHON_MEMORY_LIMIT"),
        (limits((512 * MIB, "cgroup_v2"), (1024 * MIB, "configured")), ["ok"], "512 MiB, set by the container"),
    ],
)
def test_the_limit_and_what_sets_it_are_told(reading: LimitsReading, statuses: list[str], words: str) -> None:
    found = list(environment.check_limit({}, lambda _: reading))
    assert [finding.status for finding in found] == statuses
    assert words in found[0].detail


def test_the_budget_is_handed_to_the_probes_own_reading() -> None:
    given: list[int | None] = []

    def read(configured_bytes: int | None) -> LimitsReading:
        given.append(configured_bytes)
        return limits()

    list(environment.check_limit({"OTEL_PYTHON_MEMORY_LIMIT": "512MiB"}, read))
    list(environment.check_limit({"OTEL_PYTHON_MEMORY_LIMIT": "rubbish"}, read))
    assert given == [512 * MIB, None]


def test_a_resource_limit_of_this_very_process_is_seen() -> None:
    script = (
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))\n"
        "from otel_memory.doctor.environment import check_limit\n"
        "print(*[f'{f.status}: {f.detail}' for f in check_limit({})], sep='\\n')"
    )
    argv = [sys.executable, "-c", script]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60, cwd=ROOT)
    assert done.stdout.startswith("ok: 1 GiB, set by the resource limit")
