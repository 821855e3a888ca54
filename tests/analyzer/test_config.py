"""The analyzer's settings: which source wins, what fits together, and that every error names the setting."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
from pydantic import ValidationError

from otel_memory.analyzer.config import PREFIX, Settings, SettingsError, clear, flag_of, load, parse, variable_of

TOKEN = "a-token-of-16-ch"


def wrong(*argv: str, **environ: str) -> str:
    """The message for settings that are wrong."""
    with pytest.raises(SettingsError) as caught:
        parse(argv, environ)
    return str(caught.value)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "analyzer.toml"
    path.write_text('http_port = 1001\notlp_http_port = 1002\notlp_grpc_port = 1003\nhost = "127.0.0.2"\n')
    return path


def test_without_anything_it_listens_on_loopback_at_the_documented_ports() -> None:
    settings = parse((), {})
    assert (settings.host, settings.otlp_grpc_port, settings.otlp_http_port, settings.http_port) == (
        "127.0.0.1",
        4317,
        4318,
        8431,
    )
    assert settings.token is None
    assert settings.console is True


def test_flags_go_over_environment_over_file_over_defaults(file: Path) -> None:
    environ = {"OTEL_MEMORY_CONFIG": str(file), "OTEL_MEMORY_HTTP_PORT": "2001", "OTEL_MEMORY_OTLP_HTTP_PORT": "2002"}
    settings = parse(["--http-port", "3001"], environ)
    assert settings.http_port == 3001
    assert settings.otlp_http_port == 2002
    assert settings.otlp_grpc_port == 1003
    assert settings.host == "127.0.0.2"
    assert settings.max_processes == 20_000


def test_the_flag_for_the_file_goes_over_its_variable(file: Path, tmp_path: Path) -> None:
    settings = parse(["--config", str(file)], {"OTEL_MEMORY_CONFIG": str(tmp_path / "nothing.toml")})
    assert settings.http_port == 1001


def test_an_empty_variable_is_not_set() -> None:
    assert parse((), {"OTEL_MEMORY_TOKEN": "", "OTEL_MEMORY_HTTP_PORT": "", "OTEL_MEMORY_CONFIG": ""}).http_port == 8431


def test_only_the_given_environment_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_MEMORY_HTTP_PORT", "2001")
    assert parse((), {}).http_port == 8431
    assert Settings().http_port == 8431


def test_every_setting_has_a_flag_and_a_variable_that_work() -> None:
    given = {
        "host": "::1",
        "http_port": 1,
        "otlp_grpc_port": 2,
        "otlp_http_port": 3,
        "data_dir": Path("/somewhere"),
        "token": TOKEN,
        "insecure_no_auth": True,
        "allowed_hosts": ("memory.example.org", "m"),
        "max_body_bytes": 2048,
        "max_decompressed_bytes": 4096,
        "queue_bytes": 8192,
        "max_processes": 7,
        "idle_seconds": 60.0,
        "alert_for_seconds": 0.0,
        "alert_cooldown_seconds": 1.0,
        "alert_young_seconds": 2.0,
        "page_url": "https://memory.example.org",
        "console": False,
        "console_json": True,
        "alerts_otlp_endpoint": "https://alerts.example.org",
        "alerts_otlp_protocol": "grpc",
        "alertmanager_urls": ("http://a.example.org:9093", "http://b.example.org:9093/alertmanager"),
        "alertmanager_token": TOKEN,
        "alertmanager_repeat_seconds": 30.0,
        "webhook_urls": ("https://hooks.example.org/a", "https://hooks.example.org/b"),
        "webhook_secret": TOKEN,
        "webhook_group_seconds": 0.0,
        "scores_otlp_endpoint": "https://metrics.example.org",
        "scores_otlp_protocol": "grpc",
        "scores_seconds": 60.0,
        "kafka_bootstrap": ("kafka-1.example.org:9092", "kafka-2.example.org:9092"),
        "kafka_group": "memory",
        "kafka_instance": "analyzer-0",
        "kafka_advertised_url": "http://analyzer-0.example.org:8431",
        "kafka_metrics_topic": "a",
        "kafka_logs_topic": "b",
        "kafka_alerts_topic": "c",
        "kafka_assessments_topic": "d",
        "kafka_dead_letter_topic": "e",
        "kafka_create_topics": True,
        "kafka_window_seconds": 3600.0,
        "kafka_session_seconds": 6.0,
        "kafka_security_protocol": "SASL_SSL",
        "kafka_sasl_mechanism": "PLAIN",
        "kafka_sasl_username": "memory",
        "kafka_sasl_password": TOKEN,
        "kafka_ssl_cafile": Path(__file__),
        "kafka_ssl_certfile": Path(__file__),
        "kafka_ssl_keyfile": Path(__file__),
    }
    assert given.keys() == Settings.model_fields.keys()

    def as_text(value: object) -> str:
        return ",".join(value) if isinstance(value, tuple) else str(value)

    argv = []
    for name, value in given.items():
        if isinstance(value, bool):
            argv.append(flag_of(name) if value else flag_of(name).replace("--", "--no-", 1))
        else:
            argv += [flag_of(name), as_text(value)]
    for settings in (parse(argv, {}), parse((), {variable_of(name): as_text(value) for name, value in given.items()})):
        found = {name: getattr(settings, name) for name in given}
        for name in ("token", "alertmanager_token", "webhook_secret", "kafka_sasl_password"):
            found[name] = clear(found[name])
        assert found == given


def test_sizes_may_have_a_unit() -> None:
    settings = parse(["--queue-bytes", "64MiB"], {"OTEL_MEMORY_MAX_BODY_BYTES": "1 MiB"})
    assert (settings.queue_bytes, settings.max_body_bytes) == (64 * 2**20, 2**20)


def test_a_file_may_hold_lists_and_a_home_folder(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text('allowed_hosts = ["a.example.org", "b.example.org"]\ndata_dir = "~/analyzer"\nconsole = false\n')
    settings = parse(["--config", str(path)], {})
    assert settings.allowed_hosts == ("a.example.org", "b.example.org")
    assert settings.data_dir == Path.home() / "analyzer"
    assert settings.console is False


def test_settings_do_not_change() -> None:
    settings = parse((), {})
    with pytest.raises(ValidationError):
        settings.host = "0.0.0.0"  # type: ignore[misc]


# --- errors name the setting as it was written ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("--http-port", "many"), "--http-port='many'"),
        (("--http-port", "65536"), "--http-port='65536'"),
        (("--otlp-grpc-port", "-1"), "--otlp-grpc-port='-1'"),
        (("--host", " "), "--host="),
        (("--max-body-bytes", "12"), "--max-body-bytes='12'"),
        (("--queue-bytes", "a lot"), "--queue-bytes='a lot'"),
        (("--idle-seconds", "nan"), "--idle-seconds='nan'"),
        (("--idle-seconds", "0"), "--idle-seconds='0'"),
        (("--alert-for-seconds", "inf"), "--alert-for-seconds='inf'"),
        (("--alerts-otlp-protocol", "kafka"), "--alerts-otlp-protocol='kafka'"),
        (("--alerts-otlp-endpoint", "collector:4318"), "--alerts-otlp-endpoint='collector:4318'"),
        (("--alerts-otlp-endpoint", "http://x:99999"), "--alerts-otlp-endpoint='http://x:99999'"),
        (("--alertmanager-urls", "alerts:9093"), "--alertmanager-urls='alerts:9093'"),
        (("--alertmanager-repeat-seconds", "300"), "--alertmanager-repeat-seconds='300'"),
        (("--page-url", "memory"), "--page-url='memory'"),
        (("--scores-otlp-endpoint", "collector"), "--scores-otlp-endpoint='collector'"),
        (("--http-port", "4318"), "--http-port, --otlp-grpc-port and --otlp-http-port"),
        (("--queue-bytes", "1MiB"), "--queue-bytes"),
    ],
)
def test_a_wrong_flag_is_named_with_its_value(argv: tuple[str, ...], said: str) -> None:
    assert said in wrong(*argv)


@pytest.mark.parametrize(
    ("name", "value"),
    [("HTTP_PORT", "many"), ("CONSOLE", "maybe"), ("MAX_PROCESSES", "0"), ("IDLE_SECONDS", "x")],
)
def test_a_wrong_variable_is_named_with_its_value(name: str, value: str) -> None:
    assert f"{PREFIX}{name}={value!r}" in wrong(**{f"{PREFIX}{name}": value})


def test_a_wrong_key_of_the_file_is_named_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text('http_port = "many"\n')
    assert wrong("--config", str(path)).startswith(f"{path}: http_port='many'")


def test_several_wrong_settings_are_all_named() -> None:
    text = wrong("--http-port", "many", OTEL_MEMORY_CONSOLE="maybe")
    assert len(text.splitlines()) == 2


def test_an_unknown_key_of_the_file_is_named_and_the_known_ones_are_told(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text("htpp_port = 1\n")
    text = wrong("--config", str(path))
    assert "'htpp_port' is not a setting" in text
    assert "http_port" in text


@pytest.mark.parametrize(
    ("content", "said"), [(None, "can't be read"), (b"http_port = ", "is no TOML"), (b"\xff", "is no TOML")]
)
def test_a_file_that_can_not_be_used_is_named(tmp_path: Path, content: bytes | None, said: str) -> None:
    path = tmp_path / "a.toml"
    if content is not None:
        path.write_bytes(content)
    for text in (wrong("--config", str(path)), wrong(OTEL_MEMORY_CONFIG=str(path))):
        assert str(path) in text
        assert said in text


@pytest.mark.parametrize("token", ["short", "with a blank in it", "ümlaut-token", "line\nbreak-token"])
def test_a_wrong_token_is_told_but_not_shown(token: str) -> None:
    for text in (wrong("--token", token), wrong(OTEL_MEMORY_TOKEN=token)):
        assert "(not shown)" in text
        assert token not in text


def test_a_token_is_not_shown_by_printing_settings() -> None:
    assert TOKEN not in repr(parse(["--token", TOKEN], {}))


def test_flags_can_not_be_abbreviated(capsys: pytest.CaptureFixture[str]) -> None:
    """A script that says --tok would break when another flag begins the same way."""
    with pytest.raises(SystemExit) as ended:
        parse(["--tok", TOKEN], {})
    assert ended.value.code == 2
    assert "--tok" in capsys.readouterr().err


# --- who can reach it ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost"])
def test_loopback_needs_no_token(host: str) -> None:
    assert parse(["--host", host], {}).host == host.strip("[]")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.org", "[::]"])
def test_anything_else_needs_a_token_or_the_word_for_doing_without(host: str) -> None:
    text = wrong("--host", host)
    for mend in ("--token", "OTEL_MEMORY_TOKEN", "--insecure-no-auth"):
        assert mend in text
    assert parse(["--host", host, "--token", TOKEN], {}).token_text == TOKEN
    assert parse(["--host", host], {"OTEL_MEMORY_INSECURE_NO_AUTH": "true"}).token is None


@pytest.mark.parametrize(
    ("host", "endpoint"),
    [
        ("127.0.0.1", "http://127.0.0.1:4318"),
        ("127.0.0.1", "http://localhost:4317"),
        ("127.0.0.1", "http://[::1]:4318/v1/logs"),
        ("0.0.0.0", "http://127.0.0.1:4318"),
        ("10.1.2.3", "http://10.1.2.3:4318"),
        ("127.0.0.1", "http://127.0.0.1:8431"),
    ],
)
def test_alerts_are_not_sent_to_the_analyzer_itself(host: str, endpoint: str) -> None:
    text = wrong("--host", host, "--insecure-no-auth", "--alerts-otlp-endpoint", endpoint)
    assert "is this analyzer itself" in text
    assert "--alerts-otlp-endpoint" in text


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:5318", "http://collector:4318", "https://127.0.0.1"])
def test_alerts_may_be_sent_elsewhere(endpoint: str) -> None:
    assert parse(["--alerts-otlp-endpoint", endpoint], {}).alerts_otlp_endpoint == endpoint


def test_scores_are_not_sent_to_the_analyzer_itself() -> None:
    text = wrong("--scores-otlp-endpoint", "http://localhost:4318")
    assert "--scores-otlp-endpoint http://localhost:4318 is this analyzer itself" in text


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("--webhook-secret", TOKEN), "--webhook-secret is for nobody: name an address with --webhook-urls"),
        (("--alertmanager-token", TOKEN), "--alertmanager-token is for nobody: name an address with --alertmanager"),
        (("--webhook-urls", "http://h/a,http://h/a"), "--webhook-urls=(not shown): an address stands there twice"),
        (("--webhook-secret", "short", "--webhook-urls", "http://h"), "--webhook-secret=(not shown): at least 8"),
    ],
)
def test_what_outputs_need_is_named(argv: tuple[str, ...], said: str) -> None:
    assert said in wrong(*argv)


def test_no_error_shows_a_secret() -> None:
    hidden = "T0K3N-of-a-hook"
    assert hidden not in wrong("--webhook-urls", f"hooks.example.org/{hidden}")
    assert hidden not in wrong("--alertmanager-urls", f"ftp://ann:{hidden}@alerts:9093")


def test_an_alertmanager_may_be_named_by_the_address_of_its_interface() -> None:
    urls = "http://a:9093/api/v2/alerts, http://b:9093/am/api/v2, http://c:9093/"
    found = parse(["--alertmanager-urls", urls], {}).alertmanager_urls
    assert found == ("http://a:9093", "http://b:9093/am", "http://c:9093")


@pytest.mark.parametrize(
    ("argv", "address"),
    [
        ((), "http://127.0.0.1:8431"),
        (("--host", "::1"), "http://[::1]:8431"),
        (("--host", "0.0.0.0", "--insecure-no-auth"), None),
        (("--http-port", "0"), None),
        (("--http-port", "0", "--page-url", "https://memory.example.org/"), "https://memory.example.org"),
    ],
)
def test_links_lead_to_where_people_open_the_page(argv: tuple[str, ...], address: str | None) -> None:
    assert parse(argv, {}).page_address == address


def test_the_help_names_every_flag_variable_and_default() -> None:
    from otel_memory.analyzer.config import add_arguments

    parser = argparse.ArgumentParser()
    add_arguments(parser)
    text = parser.format_help()
    for name in Settings.model_fields:
        assert flag_of(name) in text
        assert variable_of(name) in text


def test_load_ignores_flags_that_were_not_given() -> None:
    assert load({"host": None, "http_port": 0, "config": None}, {}).http_port == 0
