"""The page in a real Chromium, under a content security policy of 'self' alone, against a fake analyzer."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.analyzer.dashboard.conftest import Open, Serve
from tests.analyzer.dashboard.fake_server import threshold_event
from tests.analyzer.dashboard.fleets import (
    HEALTHY_ID,
    HOSTILE,
    LEAKING_ID,
    MIB,
    alert,
    leaking,
    process,
    stamp,
)

PROCESS = f"/#/process/{LEAKING_ID}"
pytestmark = [pytest.mark.needs("chromium"), pytest.mark.timeout(60)]


def rows(page: Page) -> list[str]:
    """Names of the services in the order of the table."""
    return page.locator("tr.row a.service").all_inner_texts()


def test_an_empty_fleet_says_what_to_do_with_commands_to_copy(serve: Serve, open_page: Open) -> None:
    page = open_page(serve("empty").url, permissions=["clipboard-read", "clipboard-write"]).page
    expect(page.get_by_role("heading", level=1)).to_have_text("No process has reported yet")
    commands = page.locator(".copyable code").all_inner_texts()
    assert commands == [
        "pip install 'otel-memory[otlp]'",
        "OTEL_SERVICE_NAME=shop OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318 "
        "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf OTEL_METRIC_EXPORT_INTERVAL=5000 "
        "opentelemetry-instrument python app.py",
        "otel-memory demo",
        "otel-memory doctor",
    ]
    page.get_by_role("button", name="Copy: start command").click()
    expect(page.get_by_role("button", name="Copy: start command")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == commands[1]


def test_rows_appear_by_server_sent_events_without_a_reload(serve: Serve, open_page: Open) -> None:
    analyzer = serve("empty")
    page = open_page(analyzer.url).page
    expect(page.get_by_text("Waiting for the first report")).to_be_visible()
    page.evaluate("window.untouched = true")
    now = time.time()
    analyzer.publish("process", process("aa", now, service_name="catalogue", verdict="unknown"))
    expect(page.locator("tr.row")).to_have_count(1)
    expect(page.get_by_role("heading", level=1)).to_have_text("Too early to judge the one process seen so far")
    analyzer.publish("process", leaking("bb", now))
    expect(page.locator("tr.row")).to_have_count(2)
    assert rows(page) == ["shop", "catalogue"], "the worst comes first"
    assert page.evaluate("window.untouched") is True


def test_a_changed_verdict_shows_in_row_counts_and_title_and_is_read_out_politely(
    serve: Serve, open_page: Open
) -> None:
    analyzer = serve("empty")
    now = time.time()
    analyzer.processes["aa"] = process("aa", now, service_name="shop", service_instance_id="shop-1")
    page = open_page(analyzer.url).page
    expect(page.get_by_role("heading", level=1)).to_have_text("The one process is healthy")
    grown = leaking("aa", now, service_instance_id="shop-1", last_seen=stamp(now + 1), memory_bytes=300 * MIB)
    analyzer.publish("process", grown)
    analyzer.publish("alert", alert("al", grown, now))
    row = page.locator("tr.row")
    expect(row.locator(".verdict")).to_have_text("Leaking")
    expect(row.locator(".c-memory")).to_contain_text("300\u00a0MiB")
    expect(row.locator(".c-growth")).to_have_text("+1.2\u00a0MB/min")
    expect(row.locator(".c-limit")).to_have_text("3.1\u00a0h2–5\u00a0h")
    expect(row.locator(".c-suspect")).to_have_text("GET /cartroute")
    expect(page.get_by_role("button", name="Leaking 1")).to_be_visible()
    expect(page).to_have_title("(1 leaking) otel-memory")
    expect(page.locator(".strip li")).to_contain_text("shop leaks 1.2 MB/min")
    live = page.locator("[aria-live=polite][role=status]")
    expect(live).to_have_text(re.compile(r"shop shop-1: Leaking\. Alert: shop leaks"))


def test_names_that_are_markup_stay_text_in_every_view(serve: Serve, open_page: Open) -> None:
    analyzer = serve("hostile")
    page = open_page(analyzer.url).page
    expect(page.locator("tr.row")).to_have_count(4)
    for view in ("#/", "#/process/1111111111111111", "#/alerts"):
        page.evaluate("view => { location.hash = view; }", view)
        expect(page.locator("main").get_by_text(HOSTILE).first).to_be_visible()
        assert page.locator("main img, main script").count() == 0
    assert page.evaluate("window.pwned") is None


def test_absent_fields_read_as_a_dash_and_never_as_zero(serve: Serve, open_page: Open) -> None:
    page = open_page(serve("hostile").url).page
    row = page.locator("tr[data-id='3333333333333333']")
    expect(row.locator(".c-memory")).to_contain_text("–no limit")
    for column in ("use", "growth", "limit", "suspect"):
        expect(row.locator(f".c-{column}")).to_have_text("–")
    row.locator("a.service").click()
    expect(page.locator(".headline")).to_have_text("Too early to judge.")
    expect(page.get_by_text("No readings in this range")).to_be_visible()


def test_a_silent_process_says_since_when(serve: Serve, open_page: Open) -> None:
    page = open_page(serve("hostile").url).page
    expect(page.locator("tr[data-id='4444444444444444'] .silence")).to_have_text("No data for 7\u00a0min")


def test_the_keyboard_alone_filters_sorts_opens_and_returns(serve: Serve, open_page: Open) -> None:
    page = open_page(serve("many").url).page
    expect(page.locator("tr.row")).to_have_count(100)
    page.keyboard.press("/")
    expect(page.locator("#filter")).to_be_focused()
    page.keyboard.type("mailer leaking")
    expect(page.locator("tr.row a.service").first).to_have_text("mailer")
    assert set(rows(page)) == {"mailer"}
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Verdict")).to_be_focused()
    page.get_by_role("button", name="Memory").focus()
    page.keyboard.press("Enter")
    expect(page.locator("thead th[aria-sort]")).to_have_attribute("aria-sort", "descending")
    page.locator("tr.row a.service").first.focus()
    page.keyboard.press("ArrowDown")
    second = page.locator("tr.row a.service").nth(1)
    expect(second).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("mailer")
    expect(page.get_by_role("heading", level=1)).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator("#filter")).to_have_value("mailer leaking")
    assert "sort=memory" in page.url


def test_order_and_filter_live_in_the_address(serve: Serve, open_page: Open) -> None:
    page = open_page(serve("many").url + "/#/?verdict=leaking&sort=use&order=desc").page
    expect(page.get_by_role("button", name="Leaking")).to_have_attribute("aria-pressed", "true")
    shares = page.locator("tr.row .c-use .number").all_inner_texts()
    numbers = [int(text.split("\u00a0")[0]) for text in shares]
    assert len(numbers) > 5
    assert numbers == sorted(numbers, reverse=True)
    page.get_by_role("button", name="Leaking").click()
    expect(page.locator("tr.row")).to_have_count(100)
    page.fill("#filter", "no such thing")
    page.get_by_role("button", name="Show all 500").click()
    expect(page.locator("tr.row")).to_have_count(100)


def finding(service: str, cause: str, leaking: int, summary: str) -> dict[str, Any]:
    ids = [f"{number:016x}" for number in range(leaking)]
    return {"service_name": service, "cause": cause, "leaking": ids, "summary": summary}


def test_what_instances_have_in_common_stands_above_them(serve: Serve, open_page: Open) -> None:
    analyzer = serve("two")
    analyzer.fleet = [
        finding("shop", "version", 15, "shop: all 15 instances of version 2.4.1 leak and none of the 15 others"),
        finding("<b>mail</b>", "one", 1, "<b>mail</b>: 1 of 30 instances leaks"),
        finding("billing", "some", 4, "billing: 4 of 9 instances leak; nothing tells them apart"),
    ]
    page = open_page(analyzer.url).page
    common = page.get_by_role("region", name="What instances have in common").get_by_role("listitem")
    expect(common).to_have_count(2)
    expect(common.first).to_contain_text("all 15 instances of version 2.4.1 leak")
    expect(common.nth(1)).to_contain_text("<b>mail</b>: 1 of 30 instances leaks.")
    common.first.get_by_role("button", name="Show").click()
    expect(page.locator("#filter")).to_have_value("shop")
    expect(page.locator("tr.row")).to_have_count(1)


def test_a_large_fleet_is_shown_in_parts_and_fetches_curves_only_for_rows_on_the_screen(
    serve: Serve, open_page: Open
) -> None:
    analyzer = serve("many")
    page = open_page(analyzer.url).page
    expect(page.locator("tr.row .spark .curve").nth(5)).to_be_attached()
    page.wait_for_timeout(300)
    assert 5 < analyzer.series_requests < 30
    page.get_by_role("button", name="Show 200 more").click()
    expect(page.locator("tr.row")).to_have_count(300)
    expect(page.get_by_text("300 of 500")).to_be_visible()


def test_a_row_keeps_its_place_while_the_focus_is_on_the_table(serve: Serve, open_page: Open) -> None:
    analyzer = serve("two")
    page = open_page(analyzer.url).page
    page.locator(f"tr[data-id='{HEALTHY_ID}'] a.service").focus()
    worse = analyzer.processes[HEALTHY_ID] | {
        "verdict": "leaking",
        "time_to_limit_seconds": {"estimate": 60, "low": 30, "high": 90},
    }
    analyzer.publish("process", worse)
    expect(page.locator(f"tr[data-id='{HEALTHY_ID}'] .verdict")).to_have_text("Leaking")
    assert rows(page) == ["shop", "catalogue"]
    page.locator("#filter").focus()
    analyzer.publish("process", worse)
    expect(page.locator("tr.row a.service").first).to_have_text("catalogue")


def test_the_process_view_tells_the_whole_story(serve: Serve, open_page: Open) -> None:
    analyzer = serve("two")
    analyzer.events[LEAKING_ID] = [threshold_event(time.time() - 420)]
    page = open_page(analyzer.url + PROCESS).page
    expect(page.locator(".headline")).to_have_text(
        re.compile(
            r"Leaking 1\.2.MB/min since .*\d\d:\d\d; reaches its 512.MiB limit in about 3\.1.h \(2–5.h\); "
            r"first suspect GET /cart\.$"
        )
    )
    expect(page.get_by_role("region", name="Suspects").locator("tbody tr").first).to_contain_text("GET /cart")
    expect(page.get_by_role("region", name="Suspects").locator("tbody tr").first).to_contain_text("87\u00a0%")
    evidence = page.get_by_role("region", name="Evidence")
    expect(evidence).to_contain_text("shop.cart.RECENT (dict) holds ever more entries")
    expect(evidence.locator("li").first).to_contain_text("…/shop/cart.py:41 add_item +23.4\u00a0MB/min")
    expect(evidence).to_contain_text("threads grew from 12 to 96")
    advice = page.get_by_role("region", name="What to do")
    expect(advice.locator("li").first).to_contain_text("<b>hostile</b>. high")
    expect(advice).to_contain_text("About 23 MB/min less growth.")
    expect(advice.locator("pre")).to_be_hidden()
    advice.get_by_text("Is it this?").click()
    expect(advice.locator("pre")).to_have_text("RECENT = collections.deque(maxlen=1_000)")
    parts = page.get_by_role("region", name="Parts of the memory")
    expect(parts.locator("tr").first).to_contain_text("Python objects")
    expect(page.get_by_role("region", name="Reasons").locator("li")).to_have_count(3)
    events = page.get_by_role("region", name="Events").locator("li")
    expect(events.first).to_contain_text("Threshold growth_20_percent crossed: 23\u00a0%, over 20\u00a0%")
    expect(page.get_by_role("region", name="Facts")).to_contain_text("node-3.eu-central.internal")
    chart = page.get_by_role("img", name="Memory in the last 6 h")
    expect(chart).to_have_attribute("aria-label", re.compile(r"limit 512.MiB; forecast to reach it in 3\.1.h"))
    expect(page.locator(".sides figure")).to_have_count(3)
    page.get_by_role("button", name="1 h").click()
    expect(page.get_by_role("img", name="Memory in the last 1 h")).to_be_visible()
    expect(page.get_by_role("button", name="1 h")).to_have_attribute("aria-pressed", "true")


def test_the_chart_draws_memory_floor_limit_and_forecast(serve: Serve, open_page: Open) -> None:
    page = open_page(serve("two").url + PROCESS, color_scheme="light").page
    expect(page.locator(".plot.tall canvas")).to_be_visible()
    page.wait_for_timeout(200)
    count = """() => {
      const canvas = document.querySelector('.plot.tall canvas');
      const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
      const wanted = {memory: [31, 85, 196], floor: [11, 125, 131], limit: [192, 39, 29], forecast: [138, 60, 168]};
      const found = Object.fromEntries(Object.keys(wanted).map(name => [name, 0]));
      for (let at = 0; at < data.length; at += 4) for (const [name, [r, g, b]] of Object.entries(wanted))
        if (data[at] === r && data[at + 1] === g && data[at + 2] === b && data[at + 3] === 255) found[name] += 1;
      return found; }"""
    pixels = page.evaluate(count)
    assert all(number > 20 for number in pixels.values()), pixels


def test_the_chart_grows_by_server_sent_events_and_reads_out_under_the_pointer(serve: Serve, open_page: Open) -> None:
    analyzer = serve("two")
    page = open_page(analyzer.url + PROCESS).page
    expect(page.locator(".plot.tall canvas")).to_be_visible()
    expect(page.locator(".connection.live")).to_be_attached()  # what was published before is not sent again
    item = analyzer.processes[LEAKING_ID]
    analyzer.publish("process", item | {"memory_bytes": 333 * MIB, "last_seen": stamp(time.time() + 1)})
    expect(page.locator(".readout .k-memory")).to_have_text("Memory 333\u00a0MiB")
    expect(page.locator(".figure").first).to_contain_text("333\u00a0MiB")
    box = page.locator(".plot.tall .u-over").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + 50)
    expect(page.locator(".readout .time")).to_have_text(re.compile(r"\d\d:\d\d:\d\d$"))
    expect(page.locator(".readout .k-memory")).not_to_have_text("Memory 333\u00a0MiB")


def test_charts_work_where_the_browser_names_a_locale_that_intl_refuses(serve: Serve, open_page: Open) -> None:
    script = "Object.defineProperty(Navigator.prototype, 'language', {get: () => 'en-US@posix', configurable: true})"
    page = open_page(serve("two").url + PROCESS, script=script).page
    expect(page.locator(".plot.tall canvas")).to_be_visible()


def test_alerts_stand_firing_first_and_lead_to_their_process(serve: Serve, open_page: Open) -> None:
    page = open_page(serve("alerts").url + "/#/alerts").page
    expect(page.get_by_role("heading", level=1)).to_have_text("1 alert is firing")
    expect(page.locator(".group h2")).to_have_text(["Firing 1", "Pending 1", "Resolved 1", "Silences 2", "Outputs 3"])
    expect(page.locator(".alert.state-firing time")).to_have_text(re.compile("since .*\\d\\d:\\d\\d"))
    expect(page.locator(".alert.state-resolved")).to_contain_text("lasted 67\u00a0min")
    page.locator(".alert.state-firing a").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("shop")


def test_an_alert_is_silenced_and_the_silence_ended_on_the_page(serve: Serve, open_page: Open) -> None:
    analyzer = serve("alerts")
    watched = open_page(analyzer.url + "/#/alerts")
    watched.forgiven.append("422")
    page = watched.page
    expect(page.locator(".hush")).to_have_count(2)
    expect(page.locator(".hush").first).to_contain_text('alertname="memory_limit_near"')
    expect(page.locator(".hush").first).to_contain_text("load test · ann")
    page.locator(".alert.state-firing").get_by_role("button", name="Silence").click()
    form = page.locator(".silence-form")
    assert form.get_by_label("Value").evaluate_all("all => all.map((one) => one.value)") == [
        "memory_leak", "shop", LEAKING_ID,
    ]  # fmt: skip
    expect(form).to_contain_text("For 1 of the 2 alerts that are not over")
    form.get_by_role("button", name="Remove the condition on process_id").click()
    form.get_by_role("button", name="Remove the condition on alertname").click()
    expect(form).to_contain_text("For 2 of the 2 alerts")
    form.get_by_label("Condition", exact=True).select_option("=~")
    form.get_by_label("Value").fill("(")
    form.get_by_role("button", name="Silence").click()
    expect(form.get_by_role("alert")).to_have_text("matcher service_name: no regular expression")
    form.get_by_label("Value").fill("sho.")
    expect(form).to_contain_text("For 2 of the 2 alerts")
    form.locator("select[name=span]").select_option("4 hours")
    form.get_by_label("Why").fill("deploy")
    form.get_by_label("Who").fill("ben")
    form.get_by_role("button", name="Silence").click()
    expect(form).to_have_count(0)
    made = analyzer.silences[0]
    assert made["matchers"] == [{"name": "service_name", "value": "sho.", "is_equal": True, "is_regex": True}]
    assert (made["comment"], made["created_by"]) == ("deploy", "ben")
    new = page.locator(".hush").filter(has_text="deploy · ben")
    expect(new).to_contain_text(re.compile(r"ends in (4|4\.0|3\.9)\s?h"))

    firing = {**analyzer.alerts["alert-1"], "silenced_by": [made["id"]]}
    analyzer.publish("alert", firing)
    expect(page.locator(".alert.state-firing .mark")).to_have_text("Silenced")
    expect(page.locator(".alert.state-firing").get_by_role("button", name="Silence")).to_have_count(0)
    new.get_by_role("button", name="End").click()
    expect(page.locator(".hush")).to_have_count(2)
    assert made["state"] == "over"


def test_how_each_output_fares_stands_beside_the_alerts(serve: Serve, open_page: Open) -> None:
    page = open_page(serve("alerts").url + "/#/alerts").page
    rows = page.locator(".outputs tbody tr")
    expect(rows).to_have_count(3)
    expect(rows.nth(0).locator(".standing")).to_have_text("Well")
    expect(rows.nth(1).locator(".standing")).to_have_text("Nothing to tell yet")
    expect(rows.nth(2).locator(".standing")).to_have_text(re.compile("Failing since .*\\d\\d:\\d\\d"))
    expect(rows.nth(2)).to_contain_text("ConnectTimeout")
    assert rows.nth(2).locator("td.number").all_inner_texts()[:5] == ["7", "12", "1", "3", "1"]


def test_where_nothing_is_silenced_or_told_the_page_says_so(serve: Serve, open_page: Open) -> None:
    page = open_page(serve("empty").url + "/#/alerts").page
    expect(page.get_by_text("Nothing is silenced")).to_be_visible()
    expect(page.get_by_text("Alerts go nowhere but to this page.")).to_be_visible()
    page.get_by_role("button", name="New silence").click()
    expect(page.locator(".silence-form select").first).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator(".silence-form")).to_have_count(0)
    expect(page.get_by_role("heading", level=1)).to_have_text("No alert is firing")


def test_a_lost_connection_is_said_and_mended_without_a_reload(serve: Serve, open_page: Open) -> None:
    analyzer = serve("two")
    watched = open_page(analyzer.url)
    watched.forgiven.append("503")
    page = watched.page
    expect(page.locator("tr.row")).to_have_count(2)
    analyzer.failing = 503
    analyzer.drop_streams()
    expect(page.get_by_role("alert")).to_contain_text("Connection lost.")
    expect(page.locator("tr.row")).to_have_count(2)
    now = time.time()
    analyzer.processes["cc"] = process("cc", now, service_name="missed-meanwhile")
    analyzer.failing = None
    page.get_by_role("button", name="Try now").click()
    expect(page.get_by_role("alert")).to_have_count(0)
    expect(page.get_by_role("link", name="missed-meanwhile")).to_be_visible()
    analyzer.publish("process", process("dd", now, service_name="live-again"))
    expect(page.get_by_role("link", name="live-again")).to_be_visible()


def test_a_locked_analyzer_asks_for_its_token_and_opens_with_it(serve: Serve, open_page: Open) -> None:
    analyzer = serve("two", token="open sesame")
    watched = open_page(analyzer.url)
    watched.forgiven.append("401")
    page = watched.page
    page.get_by_label("Access token").fill("wrong")
    page.get_by_role("button", name="Open").click()
    expect(page.get_by_label("Access token")).to_be_visible()
    page.get_by_label("Access token").fill("open sesame")
    page.get_by_role("button", name="Open").click()
    expect(page.locator("tr.row")).to_have_count(2)
    analyzer.publish("process", process("ee", time.time(), service_name="streamed"))
    expect(page.get_by_role("link", name="streamed")).to_be_visible()


def test_a_failing_analyzer_is_told_in_words_and_can_be_tried_again(serve: Serve, open_page: Open) -> None:
    analyzer = serve("two")
    analyzer.failing = 500
    watched = open_page(analyzer.url)
    watched.forgiven.append("500")
    page = watched.page
    expect(page.get_by_role("heading", name="Nothing could be loaded")).to_be_visible()
    analyzer.failing = None
    page.get_by_role("button", name="Try again").click()
    expect(page.locator("tr.row")).to_have_count(2)


def test_an_unknown_process_is_said_to_be_unknown(serve: Serve, open_page: Open) -> None:
    watched = open_page(serve("two").url + "/#/process/feedfeedfeedfeed")
    watched.forgiven.append("404")
    expect(watched.page.get_by_role("heading", name="Unknown process")).to_be_visible()


def test_nothing_is_asked_of_any_other_host(serve: Serve, open_page: Open) -> None:
    analyzer = serve("two")
    watched = open_page(analyzer.url + PROCESS)
    expect(watched.page.locator(".plot.tall canvas")).to_be_visible()
    assert len(watched.requests) > 15
    assert [url for url in watched.requests if not url.startswith(analyzer.url + "/")] == []


def test_the_colour_scheme_follows_the_system_until_it_is_chosen(serve: Serve, open_page: Open) -> None:
    page = open_page(serve("two").url, color_scheme="dark").page
    ground = "getComputedStyle(document.body.parentElement).backgroundColor"
    expect(page.get_by_role("button", name="Colours: System")).to_be_visible()
    assert page.evaluate(ground) == "rgb(14, 17, 22)"
    page.get_by_role("button", name="Colours: System").click()
    expect(page.get_by_role("button", name="Colours: Light")).to_be_visible()
    assert page.evaluate(ground) == "rgb(245, 246, 248)"
    page.reload()
    expect(page.get_by_role("button", name="Colours: Light")).to_be_visible()
    assert page.evaluate(ground) == "rgb(245, 246, 248)"
