"""The page's pure modules, asked in the browser that runs them; and the vendored files."""

from __future__ import annotations

import hashlib
import json
import mimetypes
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from tests.analyzer.dashboard.fake_server import PAGE, FakeAnalyzer
from tests.analyzer.dashboard.fleets import MIB

pytestmark = pytest.mark.timeout(60)
needs_browser = pytest.mark.needs("chromium")
VENDORED = {"preact": "MIT", "htm": "Apache-2.0", "uplot": "MIT"}


@pytest.mark.parametrize(("name", "licence"), VENDORED.items())
def test_a_vendored_module_is_the_registry_s_file_with_version_and_licence(name: str, licence: str) -> None:
    folder = PAGE / "vendor" / name
    told = json.loads((folder / "vendor.json").read_text())
    assert (told["name"], told["licence"]) == (name, licence)
    assert told["version"].count(".") == 2
    assert (folder / "LICENSE").stat().st_size > 500
    present = {path.name for path in folder.iterdir()} - {"LICENSE", "vendor.json"}
    assert present == set(told["files"])
    for file, facts in told["files"].items():
        assert hashlib.sha256((folder / file).read_bytes()).hexdigest() == facts["sha256"]


def test_own_modules_never_write_markup_and_name_no_other_host() -> None:
    for path in PAGE.glob("*"):
        if path.is_dir():
            continue
        text = path.read_text()
        for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "dangerouslySet"):
            assert word not in text, f"{path.name} uses {word}"
        hosts = text.replace("http://www.w3.org/2000/svg", "").replace("http://${host()}", "")
        assert "http://" not in hosts, path.name
        assert "https://" not in hosts, path.name


def test_every_file_has_a_type_that_browsers_take_as_a_module_or_style() -> None:
    """A browser refuses a module of another type, and with nosniff a style sheet too."""
    for path in PAGE.rglob("*"):
        if path.suffix in (".js", ".mjs"):
            assert mimetypes.guess_type(path.name)[0] in ("text/javascript", "application/javascript")


@pytest.fixture(scope="module")
def page(browser: Browser) -> Iterator[Page]:
    analyzer = FakeAnalyzer("empty").start()
    page = browser.new_page()
    page.goto(analyzer.url)
    yield page
    page.close()
    analyzer.stop()


@pytest.fixture
def ask(page: Page) -> Any:
    """``ask(module, expression, *arguments)``: what it gives with ``m`` the module and ``a`` the arguments."""

    def call(module: str, expression: str, *arguments: Any) -> Any:
        script = f"async ([name, a]) => {{ const m = await import(name); return {expression}; }}"
        return page.evaluate(script, [f"./{module}.js", list(arguments)])

    return call


@needs_browser
def test_numbers_read_as_a_person_says_them(ask: Any) -> None:
    table = {
        "bytes": [(None, "–"), (0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (512 * MIB, "512 MiB"),
                  (1023.6 * MIB, "1 GiB"), (1.25 * 1024 * MIB, "1.25 GiB"), (-3 * MIB, "-3 MiB")],
        "growth": [(None, "–"), (0, "0 MB/min"), (20_000, "+1.2 MB/min"), (-20_000, "−1.2 MB/min"),
                   (500, "+1.8 MB/h"), (5, "+18 kB/h"), (20e6, "+1.2 GB/min")],
        "percent": [(None, "–"), (0, "0 %"), (0.004, "<1 %"), (0.58, "58 %"), (0.996, ">99 %"),
                    (1, "100 %"), (1.2, "120 %")],
        "duration": [(None, "–"), (0, "0 s"), (40, "40 s"), (420, "7 min"), (11_320, "3.1 h"), (19_000, "5.5 h"),
                     (40 * 3600, "2 d"), (1e9, "> 60 d")],
    }  # fmt: skip
    for function, rows in table.items():
        values, expected = zip(*rows, strict=True)
        assert ask("format", f"a[0].map((value) => m.{function}(value))", list(values)) == [
            text.replace(" ", "\u00a0") for text in expected
        ]


@needs_browser
def test_an_interval_names_its_unit_once_and_may_be_open_above(ask: Any) -> None:
    pairs = [[7300, 18_100], [2400, 7200], [7300, None], [60, 60], [None, None], [7300, 1e9]]
    told = ask("format", "a[0].map(([low, high]) => m.interval(low, high))", pairs)
    assert [text.replace("\u00a0", " ") for text in told] == [
        "2–5 h",
        "40 min – 2 h",
        "2 h or more",
        "60 s",
        "–",
        "2 h or more",
    ]


@needs_browser
def test_the_headline_claims_no_more_than_is_known(ask: Any) -> None:
    absent = ("utilization", "limit_bytes", "growth_bytes_per_second", "time_to_limit_seconds")
    base: dict[str, Any] = {"memory_bytes": 84 * MIB, "trend": "stable", "suspects": [], **dict.fromkeys(absent)}
    cases: list[tuple[dict[str, Any], str]] = [
        ({"verdict": "leaking"}, "Leaking; memory is 84 MiB."),
        ({"verdict": "leaking", "growth_bytes_per_second": 20e3}, "Leaking 1.2 MB/min; memory is 84 MiB."),
        ({"verdict": "watch", "growth_bytes_per_second": 20e3},
         "Growing 1.2 MB/min; not yet certain that it leaks; memory is 84 MiB."),
        ({"verdict": "healthy", "limit_bytes": 512 * MIB, "utilization": 0.164},
         "No leak found: memory is steady at 84 MiB, 16 % of its 512 MiB limit."),
        ({"verdict": "healthy", "memory_bytes": None}, "No leak found."),
        (
            {"verdict": "healthy", "trend": "increasing", "growth_bytes_per_second": 20e3},
            "No leak found: memory is rising (1.2 MB/min), now 84 MiB.",
        ),
        ({"verdict": "unknown"}, "Too early to judge; memory is 84 MiB."),
        ({"verdict": "leaking", "limit_bytes": 512 * MIB,
          "time_to_limit_seconds": {"estimate": 600, "low": 300, "high": None}},
         "Leaking; reaches its 512 MiB limit in about 10 min (5 min or more)."),
    ]  # fmt: skip
    told = ask("judge", "a[0].map((process) => m.headline(process, 0))", [base | changes for changes, _ in cases])
    assert [text.replace("\u00a0", " ") for text in told] == [expected for _, expected in cases]


@needs_browser
def test_an_instance_is_named_by_what_tells_it_apart_to_a_person(ask: Any) -> None:
    uuid = "fa30fc22-75df-41ad-966d-2f21e3b762a1"
    cases: list[tuple[dict[str, Any], str]] = [
        ({"service_instance_id": "shop-7c9f-x2lqp", "host_name": "vm", "pid": 7}, "shop-7c9f-x2lqp"),
        ({"service_instance_id": uuid, "host_name": "vm", "pid": 7}, "vm · pid 7 · fa30fc22"),
        ({"service_instance_id": uuid, "host_name": None, "pid": None}, uuid),
        ({"service_instance_id": None, "host_name": None, "pid": 7}, "pid 7"),
        ({"service_instance_id": None, "host_name": None, "pid": None, "id": "abc"}, "abc"),
    ]
    assert ask("judge", "a[0].map(m.instanceOf)", [item for item, _ in cases]) == [name for _, name in cases]


@needs_browser
def test_absent_numbers_sort_last_in_both_directions(ask: Any) -> None:
    items = [{"id": name, "memory_bytes": value} for name, value in (("none", None), ("small", 1), ("large", 9))]
    sort = "a[0].sort(m.comparator({key: 'memory', direction: a[1]}, 0)).map((item) => item.id)"
    assert ask("judge", sort, items, "desc") == ["large", "small", "none"]
    assert ask("judge", sort, items, "asc") == ["small", "large", "none"]


@needs_browser
def test_severity_puts_what_ended_long_ago_last_and_the_nearest_limit_first(ask: Any) -> None:
    def item(identity: str, verdict: str, seen: float, estimate: float | None = None) -> dict[str, Any]:
        limit = None if estimate is None else {"estimate": estimate, "low": estimate, "high": estimate}
        return {"id": identity, "verdict": verdict, "last_seen": seen, "time_to_limit_seconds": limit}

    items = [
        item("healthy", "healthy", 10_000),
        item("ended", "leaking", 1000, 60),
        item("later", "leaking", 10_000, 90_000),
        item("soon", "leaking", 10_000, 600),
        item("watch", "watch", 10_000),
        item("strange", "some new verdict", 10_000),
    ]
    order = ask(
        "judge", "a[0].sort(m.comparator({key: 'severity', direction: 'asc'}, 10001)).map((item) => item.id)", items
    )
    assert order == ["soon", "later", "watch", "healthy", "strange", "ended"]


@needs_browser
def test_a_rolling_minimum_looks_back_over_its_window_and_keeps_gaps(ask: Any) -> None:
    result = ask("chart_model", "m.rollingMinimum(a[0], a[1], 20)", [0, 10, 20, 30, 40, 50], [5, 3, None, 8, 7, 9])
    assert result == [5, 3, None, 3, 7, 7]


MODEL = """(({x, columns, from, to, low, high, floorMeasured, limitInView}) =>
  ({n: x.length, sizes: Object.values(columns).map((c) => c.length), last: x.at(-1),
    ahead: columns.forecast.filter((v) => v !== null), soon: columns.soon.at(-1), late: columns.late.at(-1),
    from, to, low, high, floorMeasured, limitInView}))(m.chartModel(a[0]))"""


def model(**changes: Any) -> dict[str, Any]:
    times = [float(second) for second in range(0, 3600, 10)]
    request: dict[str, Any] = {
        "memory": {"times": times, "values": [100.0 + time / 36 for time in times]},
        "floor": None, "limit": 400, "forecast": {"estimate": 7200, "low": 3600, "high": 14_400},
        "from": 0, "to": 3600, "zoom": False,
    }  # fmt: skip
    return request | changes


@needs_browser
def test_a_forecast_starts_at_the_last_reading_and_stays_within_its_interval(ask: Any) -> None:
    told = ask("chart_model", MODEL, model())
    assert set(told["sizes"]) == {told["n"]}
    assert told["to"] == 3600 * 1.4, "the future takes at most 0.4 of the range"
    assert told["ahead"][0] == pytest.approx(100 + 3590 / 36)
    elapsed = told["last"] - 3590
    assert told["ahead"][-1] == pytest.approx(told["ahead"][0] + (400 - told["ahead"][0]) * elapsed / 7200)
    assert told["late"] < told["ahead"][-1] < told["soon"] <= 400


@needs_browser
def test_a_near_limit_is_reached_on_the_chart_and_no_curve_passes_it(ask: Any) -> None:
    told = ask("chart_model", MODEL, model(forecast={"estimate": 600, "low": 300, "high": None}))
    assert told["ahead"][-1] == 400
    assert told["to"] == pytest.approx(3600 + 690)
    assert told["soon"] == 400
    assert told["late"] == pytest.approx(100 + 3590 / 36), "no upper bound: the band stays open to a level line"


@needs_browser
def test_a_far_limit_does_not_flatten_the_curve_and_zoom_never_makes_noise_look_like_growth(ask: Any) -> None:
    far = ask("chart_model", MODEL, model(limit=64_000, forecast=None))
    assert (far["limitInView"], far["low"], far["high"]) == (False, 0, pytest.approx(249.65, abs=0.1))
    times = [0.0, 1800.0, 3600.0]
    flat = ask(
        "chart_model",
        MODEL,
        model(memory={"times": times, "values": [1000, 1001, 1000]}, forecast=None, zoom=True, limit=None),
    )
    assert flat["high"] - flat["low"] >= 100


@needs_browser
def test_a_measured_floor_is_used_and_a_range_without_readings_is_no_error(ask: Any) -> None:
    floor = {"times": [5.0, 1000.0], "values": [90.0, 110.0]}
    assert ask("chart_model", MODEL, model(floor=floor))["floorMeasured"] is True
    assert ask("chart_model", "m.holdLast(a[0], [0, 5, 999, 2000])", floor) == [None, 90, 90, 110]
    empty = ask("chart_model", MODEL, model(memory={"times": [], "values": []}))
    assert (empty["n"], empty["ahead"]) == (0, [])


@needs_browser
def test_a_count_becomes_a_rate_and_a_restart_a_gap(ask: Any) -> None:
    series = {"metric": "requests", "times": [0, 10, 20, 30, 40, 50], "values": [5, 25, None, 60, 3, 13]}
    told = ask("chart_model", "m.perSecond(a[0])", series)
    assert told["values"] == [None, 2, None, None, None, 1]


@needs_browser
def test_a_flat_sparkline_is_not_blown_up_and_a_near_limit_comes_into_view(ask: Any) -> None:
    flat = ask("sparkline", "m.scale(a[0], null)", [100, 101, 100, 102])
    assert flat["high"] - flat["low"] >= 25
    assert flat["low"] <= 100
    assert flat["high"] >= 102
    near = ask("sparkline", "m.scale(a[0], 500)", [400, 410])
    assert (near["limited"], near["high"]) == (True, 500)
    assert ask("sparkline", "m.path([0, 300, 600], [1, null, 2], {low: 0, high: 2})").count("M") == 2


@needs_browser
def test_a_curve_that_goes_on_for_long_stays_bounded_and_keeps_its_newest_reading(ask: Any) -> None:
    grow = """(() => {
      let curve = {times: [], values: []};
      let most = 0;
      for (let time = 1; time <= 4000; time += 1) {
        curve = m.prolong(curve, time, time);
        most = Math.max(most, curve.times.length);
      }
      const same = m.prolong(curve, 4000, 1) === curve;
      return {most, first: curve.times[0], last: curve.values.at(-1), same}; })()"""
    told = ask("sparkline", grow)
    assert told["most"] <= 120
    assert told["first"] >= 4000 - 1800
    assert (told["last"], told["same"]) == (4000, True)


@needs_browser
def test_events_are_parsed_however_the_bytes_are_cut(ask: Any) -> None:
    text = ': hello\r\n\r\nevent: process\ndata: {"id":\ndata: 1}\nid: 7\n\nretry: 5\ndata:x\n\ndata: unfinished'
    parse = """(() => { const results = a[1].map((size) => { const parser = new m.EventParser(); const events = [];
      for (let at = 0; at < a[0].length; at += size) events.push(...parser.push(a[0].slice(at, at + size)));
      return JSON.stringify(events); }); return [results[0], new Set(results).size]; })()"""
    first, different = ask("stream", parse, text, [1, 2, 3, 7, 1000])
    assert different == 1
    assert json.loads(first) == [
        {"event": "process", "data": '{"id":\n1}', "id": "7"},
        {"event": "message", "data": "x", "id": "7"},
    ]
