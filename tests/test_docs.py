"""Documentation and code say the same."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

import otel_memory
from otel_memory import names
from otel_memory.__main__ import VERBS
from tests import generate_docs

ROOT = Path(__file__).parent.parent
PAGES = sorted({*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md"), *ROOT.glob("*/README.md")})
WALK = ROOT / "docs" / "walk"


@pytest.mark.parametrize("name", generate_docs.PAGES)
def test_a_generated_page_is_what_the_code_would_write(name: str) -> None:
    written = (generate_docs.ROOT / name).read_text("utf-8")
    assert written == generate_docs.page(name), "run: python -m tests.generate_docs"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_leads_to_a_file(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text("utf-8")):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_only_names_that_exist_are_documented(page: Path) -> None:
    known = {*names.METRICS, *names.ANALYZER_METRICS, *names.ATTRIBUTES, *names.EVENTS}
    modules = {path.stem for path in (ROOT / "otel_memory").rglob("*.py")} | {
        path.name for path in (ROOT / "otel_memory").rglob("*") if path.is_dir()
    }
    for name in set(re.findall(r"`(otel_memory\.[a-z_.]+)`", page.read_text("utf-8"))):
        assert name in known or name.split(".")[1] in modules, f"{page.name} names {name}"


def test_the_walk_lists_every_page_and_every_row_that_one_shows() -> None:
    """``docs/walk/README.md`` has one line a row, with a link to the page whose heading begins with that row."""
    lines = re.findall(r"^\| (A[A0-9, –]+) \|.*\]\(([a-z0-9_-]+\.md)\)", (WALK / "README.md").read_text("utf-8"), re.M)
    listed = {(row, page) for rows, page in lines for row in re.findall(r"A\d+", rows)}
    shown = {
        (row, page.name)
        for page in WALK.glob("*.md")
        if page.name != "README.md"
        for rows in re.findall(r"^## (A[A0-9, –]+) ", page.read_text("utf-8"), re.M)
        for row in re.findall(r"A\d+", rows)
    }
    assert shown - listed == set(), "rows that docs/walk/README.md does not list"
    assert listed - shown == set(), "rows that docs/walk/README.md lists and no page shows"


def test_the_walk_shows_every_row() -> None:
    """A1 to A25: what the probe does, each by an example that runs."""
    rows = {
        row for line in (WALK / "README.md").read_text("utf-8").splitlines() for row in re.findall(r"^\| (A\d+) ", line)
    }
    assert rows == {f"A{number}" for number in range(1, 26)}


def test_the_architecture_names_every_module_of_the_probe() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    probe = ROOT / "otel_memory" / "probe"
    named = set(re.findall(r"([a-z_]+)\.py`", text[text.index("## The probe") : text.index("## The analyzer")]))
    assert {path.stem for path in probe.rglob("*.py")} - {"__init__"} - named == set()


def test_every_extra_exporter_and_verb_stands_in_the_readme() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    for extra in project["optional-dependencies"].keys() - {"instruments"}:
        assert f"`{extra}`" in text, f"extra {extra}"
    for group, entries in project["entry-points"].items():
        for name in entries if group.endswith("_exporter") else ():
            assert f"`{name}`" in text, f"exporter {name}"
    for verb in VERBS:
        assert f"otel-memory {verb}" in text


def test_the_face_names_what_it_can_give() -> None:
    assert {*otel_memory.__all__} - {"__version__"} == otel_memory._HOMES.keys()
    for name in otel_memory.__all__:
        assert getattr(otel_memory, name) is not None


def test_names_follow_the_naming_rules() -> None:
    """Semantic conventions: own prefix, lower case, base units, and attributes of events are known ones."""
    for metric in (*names.METRICS.values(), *names.ANALYZER_METRICS.values()):
        assert metric.conventional != metric.name.startswith("otel_memory."), metric.name
        assert re.fullmatch(r"[a-z][a-z0-9_.]*", metric.name)
        assert metric.unit in {"By", "s", "1", "By/s"} or re.fullmatch(r"\{[a-z_]+\}", metric.unit), metric.unit
        assert metric.description.endswith(".")
    for event in names.EVENTS.values():
        for name in event.attributes:
            assert name in names.ATTRIBUTES or not name.startswith("otel_memory."), name
