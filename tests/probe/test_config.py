"""Settings: what is valid, what an error says, and that nothing in the launcher's list clashes with another package."""

from __future__ import annotations

import os
from dataclasses import FrozenInstanceError
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from otel_memory import names
from otel_memory.probe import environment_variables
from otel_memory.probe.config import PREFIX, Settings, SettingsError, descriptions, unknown_variables
from otel_memory.probe.rules import parse_rule
from otel_memory.probe.thresholds import BUILT_IN, Rule


def test_nothing_set_gives_the_documented_defaults() -> None:
    settings = Settings.load({})
    assert settings == Settings()
    assert (settings.interval_seconds, settings.slow_interval_seconds) == (1.0, 30.0)
    assert settings.pressure_levels == (0.7, 0.85, 0.95)
    assert settings.rules == BUILT_IN
    assert settings.events == ("otlp",)
    assert settings.limit_bytes is None
    assert settings.enabled


def test_settings_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        Settings().interval_seconds = 2  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "seconds"), [("250", 0.25), ("250ms", 0.25), ("2s", 2.0), (" 1 min ", 60.0), ("1500.5", 1.5005)]
)
def test_a_bare_interval_is_milliseconds_and_units_are_understood(text: str, seconds: float) -> None:
    assert Settings.load({PREFIX + "INTERVAL": text}).interval_seconds == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("536870912", 2**29),
        ("512MiB", 2**29),
        ("512Mi", 2**29),
        ("1GB", 10**9),
        ("1.5 gib", 3 * 2**29),
        ("64kb", 64000),
    ],
)
def test_a_limit_is_bytes_or_has_a_unit(text: str, size: int) -> None:
    assert Settings.load({PREFIX + "LIMIT": text}).limit_bytes == size


def test_an_argument_wins_over_the_environment() -> None:
    settings = Settings.load({PREFIX + "INTERVAL": "5000", PREFIX + "LIMIT": "1GB"}, interval=200, limit=None)
    assert settings.interval_seconds == 0.2
    assert settings.limit_bytes == 10**9


def test_an_empty_variable_is_as_good_as_none() -> None:
    assert Settings.load({PREFIX + "LIMIT": "", PREFIX + "INTERVAL": "  "}) == Settings()


def test_events_may_go_to_several_sinks() -> None:
    assert Settings.load({PREFIX + "EVENTS": "otlp, kafka"}).events == ("otlp", "kafka")


def test_a_slow_interval_left_out_follows_a_long_interval() -> None:
    assert Settings.load({PREFIX + "INTERVAL": "60s"}).slow_interval_seconds == 60.0


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("INTERVAL", "fast", "milliseconds"),
        ("INTERVAL", "0", "milliseconds"),
        ("INTERVAL", "-5", "milliseconds"),
        ("INTERVAL", "nan", "milliseconds"),
        ("INTERVAL", "1", "from 100 ms"),
        ("INTERVAL", "2h", "to 1 h"),
        ("SLOW_INTERVAL", "500", "at least the interval"),
        ("LIMIT", "lots", "512MiB"),
        ("LIMIT", "5XB", "512MiB"),
        ("LIMIT", "0", "512MiB"),
        ("THRESHOLDS", "rss>", "in 'rss>'"),
        ("EVENTS", "smoke", "not 'smoke'"),
        ("EVENTS", "otlp,none", "not 'none'"),
        ("PRESSURE_LEVELS", "0.5,0.7", "three rising shares"),
        ("PRESSURE_LEVELS", "0.5,0.7,0.6", "three rising shares"),
        ("PRESSURE_LEVELS", "a,b,c", "three rising shares"),
        ("OPERATION_LOG", "maybe", "true or false"),
    ],
)
def test_an_error_names_the_variable_the_value_and_what_is_expected(name: str, value: str, expected: str) -> None:
    with pytest.raises(SettingsError) as raised:
        Settings.load({PREFIX + name: value})
    message = str(raised.value)
    assert message.startswith(f"{PREFIX}{name}={value!r}: ")
    assert expected in message
    assert raised.value.setting == PREFIX + name


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("interval", "x"),
        ("interval", True),
        ("interval", [1]),
        ("slow_interval", float("inf")),
        ("limit", -1),
        ("limit", float("nan")),
        ("limit", False),
        ("thresholds", 7),
        ("thresholds", [1, 2]),
        ("thresholds", ["rss>1MB", 1]),
        ("thresholds_file", 3),
        ("thresholds_file", "/nowhere/rules"),
        ("events", []),
        ("events", 3),
        ("pressure_levels", [0.1, 0.2, True]),
        ("pressure_levels", 0.5),
        ("operation_log", "maybe"),
        ("speed", 9),
    ],
)
def test_an_error_names_the_argument(argument: str, value: object) -> None:
    with pytest.raises(SettingsError) as raised:
        Settings.load({}, **{argument: value})
    assert str(raised.value).startswith(f"{argument}=")


def test_an_unknown_argument_is_told_with_the_nearest_known_one() -> None:
    with pytest.raises(SettingsError, match="did you mean slow_interval"):
        Settings.load({}, slow_intervall=9000)


def test_an_error_of_a_very_long_value_stays_short() -> None:
    with pytest.raises(SettingsError) as raised:
        Settings.load({PREFIX + "LIMIT": "9" * 10_000 + "x"})
    assert len(str(raised.value)) < 400


def test_arguments_of_declarative_configuration_are_taken_as_they_come() -> None:
    settings = Settings.load(
        {},
        interval=500,
        slow_interval="10s",
        limit=1024,
        thresholds=["none", "rss>1MiB"],
        events=["none"],
        pressure_levels=[0.1, 0.2, 0.3],
        operation_log=True,
    )
    assert [rule.name for rule in settings.rules] == ["rss>1MiB"]
    assert settings.events == ()
    assert settings.pressure_levels == (0.1, 0.2, 0.3)
    assert settings.operation_log is True


def test_rules_can_be_given_as_objects_beside_the_built_in_ones() -> None:
    own = Rule("mine", names.PROCESS_MEMORY_USAGE, "greater_than", 5)
    assert Settings.load({}, thresholds=[own]).rules == (*BUILT_IN, own)
    rules = Settings.load({}, thresholds=[own, "none", "fds>9"]).rules
    assert [rule.name for rule in rules] == ["mine", "fds>9"]


# --- a file of rules ----------------------------------------------------------------------------------------


def from_file(content: str | bytes, folder: Path, **environment: str) -> Settings:
    path = folder / "rules"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return Settings.load({PREFIX + "THRESHOLDS_FILE": str(path), **environment})


def test_a_file_holds_one_rule_a_line_with_comments(tmp_path: Path) -> None:
    settings = from_file("# ours\n\nbig = rss>1GiB:critical  # a page\r\nfds>900; threads>90\n", tmp_path)
    assert settings.rules == (
        *BUILT_IN,
        *(parse_rule(text) for text in ("big=rss>1GiB:critical", "fds>900", "threads>90")),
    )


def test_the_variable_wins_over_the_file_and_the_file_over_the_built_in_rules(tmp_path: Path) -> None:
    settings = from_file(
        "memory_growth=rss+50%/1h\nbig=rss>1GiB\nfds>900\n", tmp_path, **{PREFIX + "THRESHOLDS": "big=rss>2GiB"}
    )
    by_name = {rule.name: rule for rule in settings.rules}
    assert len(by_name) == len(settings.rules) == len(BUILT_IN) + 2
    assert (by_name["memory_growth"].bound, by_name["big"].bound) == (50, 2**31)
    assert {rule.name for rule in from_file("none\nfds>900", tmp_path).rules} == {"fds>900"}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("fds>900\n\nrss>much # hm\n", "line 3, in 'rss>much': expected a size"),
        ("fds>900\nfds>900\n", "'fds>900' stands there twice"),
        (b"fds>900\n\xff\xfe", "line 2: expected UTF-8"),
        ("#" * 70_000, "at most 65536 bytes"),
        ("\n".join(f"fds>{count}" for count in range(1, 80)), "at most 64 rules"),
    ],
)
def test_an_error_in_a_file_names_the_variable_the_file_and_the_line(
    content: str | bytes, expected: str, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError) as raised:
        from_file(content, tmp_path)
    assert str(raised.value).startswith(f"{PREFIX}THRESHOLDS_FILE='{tmp_path / 'rules'}': ")
    assert expected in str(raised.value)


def test_what_is_no_file_is_refused_and_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, expected in [
        (tmp_path / "nothing", "No such file"),
        (tmp_path, "directory"),
        (tmp_path / "pipe", "something else"),
    ]:
        with pytest.raises(SettingsError, match=f"a file of rules.*{expected}"):
            Settings.load({}, thresholds_file=path)


def test_a_long_interval_widens_windows_that_would_hold_too_few_readings() -> None:
    windows = {rule.name: rule.window_seconds for rule in Settings.load({}, interval="60s").rules}
    assert (windows["memory_growth_fast"], windows["memory_growth"], windows["process_memory_high"]) == (720, 720, 0)
    assert all(rule.window_seconds <= 86400 for rule in Settings.load({}, interval="1h").rules)


@pytest.mark.parametrize("value", ["true", "TRUE", " true "])
def test_a_disabled_sdk_disables_the_probe_whatever_else_is_set(value: str) -> None:
    assert not Settings.load({"OTEL_SDK_DISABLED": value, PREFIX + "INTERVAL": "nonsense"}).enabled


@pytest.mark.parametrize("value", ["", "false", "1"])
def test_only_true_disables_the_sdk(value: str) -> None:
    assert Settings.load({"OTEL_SDK_DISABLED": value}).enabled


def test_a_misspelt_variable_is_pointed_out() -> None:
    (sentence,) = unknown_variables({PREFIX + "INTERVALL": "1", PREFIX + "LIMIT": "1", "OTEL_SERVICE_NAME": "x"})
    assert "OTEL_PYTHON_MEMORY_INTERVALL" in sentence
    assert "did you mean OTEL_PYTHON_MEMORY_INTERVAL?" in sentence


@pytest.mark.parametrize(
    ("rest", "meant"), [("EVNTS", "EVENTS"), ("THRESHOLD", "THRESHOLDS"), ("UNKNOWN", None), ("X", None)]
)
def test_only_a_name_that_is_really_like_it_is_offered(rest: str, meant: str | None) -> None:
    (sentence,) = unknown_variables({PREFIX + rest: "1"})
    assert sentence.partition(" (did you mean ")[2] == (f"{PREFIX}{meant}?)" if meant else "")


def _constants(module: object) -> dict[str, object]:
    return {name: value for name, value in vars(module).items() if name.startswith("OTEL_")}


def test_each_setting_has_its_variable_and_the_launcher_sees_no_other() -> None:
    expected = {description.variable for description in descriptions().values()}
    constants = _constants(environment_variables)
    assert set(constants) == expected
    assert all(name == value for name, value in constants.items())


def test_no_other_package_defines_a_variable_of_ours() -> None:
    """The launcher makes a flag of each, and a flag defined twice keeps it from starting."""
    others = {
        name
        for entry_point in entry_points(group="opentelemetry_environment_variables")
        if not entry_point.value.startswith("otel_memory")
        for name in _constants(entry_point.load())
    }
    assert others, "the launcher's own variables are there to compare with"
    assert not others & set(_constants(environment_variables))
