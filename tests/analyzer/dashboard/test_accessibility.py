"""What can be checked by machine of who can use the page: names, labels, structure, contrast, width, stillness."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.analyzer.dashboard.conftest import Open, Serve
from tests.analyzer.dashboard.fleets import LEAKING_ID

VIEWS = {
    "empty": ("empty", "#/", ".empty"),
    "fleet": ("alerts", "#/", "tr.row .curve"),
    "odd fleet": ("hostile", "#/", "tr.row .curve"),
    "process": ("two", f"#/process/{LEAKING_ID}", ".sides figure"),
    "odd process": ("hostile", "#/process/2222222222222222", ".sides figure"),
    "alerts": ("alerts", "#/alerts", ".outputs"),
    "no alerts": ("empty", "#/alerts", ".foot"),
}
pytestmark = [pytest.mark.needs("chromium"), pytest.mark.timeout(60)]

FAULTS = """() => {
  const faults = [];
  const tell = (what, element) => faults.push(`${what}: ${element.outerHTML.slice(0, 120)}`);
  const all = (selector) => [...document.querySelectorAll(selector)];
  const told = (element) => (element.ariaLabel || element.innerText || element.title || '').trim();
  const each = (selector, what, well) => all(selector).forEach((element) => well(element) || tell(what, element));
  each('input, select, textarea', 'no label', (e) => e.labels.length || e.ariaLabel);
  each('button, a[href], summary', 'no name', (e) => told(e) || e.querySelector('img[alt]:not([alt=""])'));
  each('img', 'no alt', (e) => e.hasAttribute('alt'));
  each('svg', 'svg without a name', (e) => e.ariaHidden === 'true' || (e.role === 'img' && e.ariaLabel));
  each('thead th', 'no scope', (e) => e.scope === 'col');
  each('table.fleet', 'no caption', (e) => e.ariaLabel);
  each('section', 'section without a name', (e) => e.ariaLabel || e.querySelector('h2'));
  each('[tabindex]', 'tabindex above 0', (e) => e.tabIndex <= 0);
  for (const only of ['header', 'nav', 'main', 'h1']) if (all(only).length !== 1) faults.push(`not one ${only}`);
  if (!document.documentElement.lang) faults.push('no language');
  const ids = all('[id]').map((element) => element.id);
  if (new Set(ids).size !== ids.length) faults.push('an id twice');
  let level = 0;
  for (const heading of all('h1, h2, h3')) {
    const next = Number(heading.tagName[1]);
    if (next > level + 1) tell('heading level skipped', heading);
    level = next;
  }
  return faults; }"""

# Relative luminance and contrast ratio as WCAG 2.2 defines them, over the colours as they are blended.
CONTRAST = """() => {
  const parse = (text) => {
    const [r, g, b, a = 1] = text.match(/[\\d.]+/g).map(Number);
    return { r, g, b, a };
  };
  const blend = (top, under, c) => top[c] * top.a + under[c] * (1 - top.a);
  const over = (top, under) => Object.fromEntries([...'rgb'].map((c) => [c, blend(top, under, c)]).concat([['a', 1]]));
  const linear = (c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  const light = ({ r, g, b }) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
  const ground = (element) => {
    const layers = [];
    for (let at = element; at; at = at.parentElement) layers.push(parse(getComputedStyle(at).backgroundColor));
    return layers.reverse().reduce((under, top) => over(top, under), { r: 255, g: 255, b: 255, a: 1 });
  };
  const poor = [];
  let checked = 0;
  for (const element of document.querySelectorAll('#app *')) {
    const own = [...element.childNodes].filter((node) => node.nodeType === 3).map((node) => node.data.trim()).join('');
    if (!own || !element.checkVisibility() || element.closest('.visually-hidden, .skip')) continue;
    const style = getComputedStyle(element);
    const size = parseFloat(style.fontSize);
    if (!size) continue;
    const under = ground(element);
    const [a, b] = [light(over(parse(style.color), under)), light(under)].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    checked += 1;
    if (ratio < (large ? 3 : 4.5)) poor.push(`${ratio.toFixed(2)} ${element.className}: ${own.slice(0, 40)}`);
  }
  return { checked, poor }; }"""

CUT = """() => [...document.querySelectorAll('main a, main button, main p, main td, main dd')]
  .filter((e) => e.checkVisibility() && !e.closest('thead') && e.getBoundingClientRect().right > innerWidth + 1)
  .map((e) => e.outerHTML.slice(0, 100))"""

OBSERVE = """window.shifts = 0;
new PerformanceObserver((list) => { for (const entry of list.getEntries()) window.shifts += entry.value; })
  .observe({type: 'layout-shift', buffered: true});"""


def show(serve: Serve, open_page: Open, view: str, **options: Any) -> Page:
    fleet, address, ready = VIEWS[view]
    page = open_page(f"{serve(fleet).url}/{address}", **options).page
    expect(page.locator(ready).first).to_be_attached()
    return page


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_is_named_legible_and_fits_a_telephone(view: str, serve: Serve, open_page: Open) -> None:
    """Everything has a name and a place in the structure, text a contrast of 4.5 in both schemes; 390 px suffice."""
    page = show(serve, open_page, view)
    assert page.evaluate(FAULTS) == []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        contrast = page.evaluate(CONTRAST)
        assert contrast["checked"] > 8
        assert contrast["poor"] == [], scheme
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.evaluate(CUT) == []


@pytest.mark.parametrize("view", ["fleet", "process"])
def test_nothing_moves_while_data_comes_in(view: str, serve: Serve, open_page: Open) -> None:
    """Cumulative layout shift as browsers measure it; 0.1 is what is commonly called good."""
    page = show(serve, open_page, view, script=OBSERVE)
    page.wait_for_timeout(300)
    assert page.evaluate("window.shifts") < 0.02


def test_each_verdict_has_a_word_and_a_shape_of_its_own(serve: Serve, open_page: Open) -> None:
    page = open_page(serve("many").url).page
    expect(page.locator(".chip")).to_have_count(4)
    shapes = page.locator(".chip path").evaluate_all("paths => paths.map((path) => path.getAttribute('d'))")
    words = page.locator(".chip").evaluate_all(
        "chips => chips.map((chip) => chip.textContent.replace(/[\\d\\s]/g, ''))"
    )
    assert len(set(shapes)) == 4
    assert words == ["Leaking", "Watch", "Tooearly", "Healthy"]
