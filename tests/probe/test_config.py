"""Settings: what is valid, what an error says, and that nothing in the launcher's list clashes with another package."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields
from importlib.metadata import entry_points

import pytest

from otel_memory import names
from otel_memory.probe import environment_variables
from otel_memory.probe.config import PREFIX, Configuration, Settings, SettingsError, descriptions, unknown_variables
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
        ("EVENTS", "kafka", "not 'kafka'"),
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
        ("thresholds", [Rule("peak", names.MEMORY_PEAK, "greater_than", 1)]),
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


def _constants(module: object) -> dict[str, object]:
    return {name: value for name, value in vars(module).items() if name.startswith("OTEL_")}


def test_each_setting_has_its_variable_and_the_launcher_sees_no_other() -> None:
    expected = {description.variable for description in descriptions().values()}
    assert expected == {PREFIX + field.name.upper() for field in fields(Configuration)}
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
