"""What a process found of its own growth makes suspects."""

from __future__ import annotations

import pytest

from otel_memory import names
from otel_memory.analyzer.findings import MOST_SUSPECTS, merged, read_finding, suspects_of
from otel_memory.analyzer.model import AttributeValue, Suspect

EVENT: dict[str, AttributeValue] = {
    names.EVIDENCE_KIND: "python",
    names.EVIDENCE_GROWTH: 40_000.0,
    names.EVIDENCE_CONFIDENCE: 0.8,
    names.EVIDENCE_SITE: ("shop/cart.py:41 add", "shop/log.py:7 note", "shop/x.py:1 f"),
    names.EVIDENCE_SITE_GROWTH: (30_000.0, 4_000.0, 1_000.0),
    names.EVIDENCE_TYPE: ("shop.Item",),
    names.EVIDENCE_TYPE_GROWTH: (500,),
    names.EVIDENCE_HOLDER: ("shop.Cart.items (instance attribute), kept by shop.CARTS",),
    names.EVIDENCE_HOLDER_KIND: ("instance",),
    names.EVIDENCE_HOLDER_CONTAINER: ("list",),
    names.EVIDENCE_HOLDER_GROWTH: (41_000,),
}


def test_lines_are_suspects_with_their_share_and_who_holds_what_they_make() -> None:
    first, second = suspects_of(read_finding(EVENT))
    assert (first.kind, first.name, first.share) == ("site", "shop/cart.py:41 add", 0.75)
    assert first.confidence == pytest.approx(0.56)
    assert first.growth_bytes_per_second == 30_000.0
    assert first.evidence == (
        "allocated there and kept while it was traced: 1.8 MB/min; "
        "held by shop.Cart.items (kept by shop.CARTS), 41,000 entries more"
    )
    assert second.share == 0.1
    assert "held by" not in second.evidence


def test_a_line_that_made_next_to_nothing_of_the_growth_is_no_suspect() -> None:
    attributes = {**EVENT, names.EVIDENCE_SITE_GROWTH: (1_000.0, 800.0, 10.0)}
    assert [one.kind for one in suspects_of(read_finding(attributes))] == ["type"]


def test_the_line_that_made_what_a_holder_took_comes_first_with_its_measured_share() -> None:
    attributes = {
        **EVENT,
        names.EVIDENCE_WINDOW: 60.0,
        names.EVIDENCE_HOLDER_SIZE: (1_200_000,),
        names.EVIDENCE_HOLDER_SITE: ("shop/cart.py:41 add",),
    }
    first, second = suspects_of(read_finding(attributes))[:2]
    assert (first.name, first.share, first.growth_bytes_per_second) == ("shop/cart.py:41 add", 0.5, 20_000.0)
    assert first.evidence == "made what shop.Cart.items (kept by shop.CARTS) took: 41,000 entries, 1.2 MB"
    assert second.name == "shop/log.py:7 note"


@pytest.mark.parametrize(
    ("rate", "share"), [(20_000.0, 0.5), (40_000.0, 1.0), (120_000.0, 1.0), (240_000.0, 0.5), (1_200_000.0, 0.1)]
)
def test_a_line_that_made_many_times_the_growth_was_only_at_work_just_then(rate: float, share: float) -> None:
    attributes = {**EVENT, names.EVIDENCE_SITE: ("server.py:9 serve",), names.EVIDENCE_SITE_GROWTH: (rate,)}
    assert suspects_of(read_finding(attributes))[0].share == pytest.approx(share)


def test_without_a_line_the_type_is_the_suspect() -> None:
    (only,) = suspects_of(read_finding({k: v for k, v in EVENT.items() if "site" not in k}))
    assert (only.kind, only.name) == ("type", "shop.Item")
    assert 0 < only.confidence < 0.8
    assert only.evidence.startswith("500 more of them between two counts; held by shop.Cart.items")


def test_a_builtin_type_is_named_by_who_holds_it() -> None:
    attributes = {**EVENT, names.EVIDENCE_SITE: (), names.EVIDENCE_SITE_GROWTH: (), names.EVIDENCE_TYPE: ("list",)}
    (suspect,) = suspects_of(read_finding(attributes))
    assert (suspect.kind, suspect.name) == ("type", "shop.Cart.items (list)")
    (suspect,) = suspects_of(read_finding({**attributes, names.EVIDENCE_HOLDER_KIND: ("unknown",)}))
    assert suspect.name == "list"


@pytest.mark.parametrize("growth", [None, 0.0, -5.0, "much"])
def test_without_growth_nobody_is_suspect(growth: AttributeValue | None) -> None:
    attributes = {k: v for k, v in EVENT.items() if k != names.EVIDENCE_GROWTH}
    if growth is not None:
        attributes[names.EVIDENCE_GROWTH] = growth
    assert suspects_of(read_finding(attributes)) == ()


def test_a_line_goes_before_the_route_that_leads_to_it_and_behind_one_that_explains_more() -> None:
    line = Suspect("site", "a.py:1 f", 30_000.0, 0.75, 0.8, "")
    route = Suspect("route", "/cart", 24_000.0, 0.6, 1.0, "")
    whole = Suspect("route", "/all", 40_000.0, 1.0, 1.0, "")
    assert [one.name for one in merged([route], [line])] == ["a.py:1 f", "/cart"]
    assert [one.name for one in merged([whole, route], [line])] == ["/all", "a.py:1 f", "/cart"]
    assert len(merged([route] * 9, [line])) == MOST_SUSPECTS


def test_a_line_of_the_standard_library_works_for_another() -> None:
    attributes = {**EVENT, names.EVIDENCE_SITE: ("asyncio/events.py:8 read", "shop/cart.py:41 add", "threading.py:9 f")}
    sites = suspects_of(read_finding({**attributes, names.EVIDENCE_SITE_GROWTH: (30_000.0, 4_000.0, 1_000.0)}))
    assert [one.confidence for one in sites] == pytest.approx([0.28, 0.56])


def test_calls_without_a_name_come_after_every_line() -> None:
    line = Suspect("site", "a.py:1 f", 4_000.0, 0.1, 0.8, "")
    for name in ("GET (no route)", "(other)"):
        nameless = Suspect("route", name, 40_000.0, 1.0, 1.0, "")
        assert [one.name for one in merged([nameless], [line])] == ["a.py:1 f", name]
        assert merged([nameless], []) == (nameless,)


@pytest.mark.parametrize(
    ("burst", "census", "seconds"),
    [
        (2.0, 1.0, 11.0),
        (None, 1.0, 1.0),
        (None, None, 0.0),
        (1e9, 1.0, 60.0),
        (float("nan"), 1.0, 0.0),
        (-5.0, 0.0, 0.0),
    ],
)
def test_how_long_the_process_looked_at_itself(burst: float | None, census: float | None, seconds: float) -> None:
    told = {names.EVIDENCE_BURST_DURATION: burst, names.EVIDENCE_CENSUS_DURATION: census}
    finding = read_finding({**EVENT, **{name: value for name, value in told.items() if value is not None}})
    assert finding.looked(1000.0) == (997.0 - seconds, 1003.0)
