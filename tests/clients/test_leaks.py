"""`otel-memory leaks`: status, lists, and that nothing is lost whatever the output is."""

from __future__ import annotations

import io
import json
import re

import pytest

from otel_memory.clients import leaks
from otel_memory.clients.replies import read_process
from otel_memory.clients.terminal import Terminal
from otel_memory.humanize import format_rate
from tests.clients.documents import HOSTILE, Fake, healthy, process, serve, suspect

RATE = format_rate(412_000.0)
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class Screen(io.StringIO):
    """A terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OTEL_MEMORY_URL", "OTEL_MEMORY_TOKEN", "NO_COLOR", "FORCE_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


def shown(*documents: dict[str, object], width: int | None = None, everything: bool = False) -> str:
    """The list on a terminal ``width`` columns wide, or (None) in a pipe."""
    out = io.StringIO() if width is None else Screen()
    terminal = Terminal(out, width)
    processes = [read_process(document) for document in documents]
    terminal.show(*leaks.listing(processes, 0.5, terminal, everything=everything))
    return out.getvalue()


# --- status ---------------------------------------------------------------------------------------------------


def test_a_leak_is_status_one_and_worst_comes_first(capsys: pytest.CaptureFixture[str]) -> None:
    with serve(Fake([process(), healthy()])) as url:
        assert leaks.main(["--url", url]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:2] == ["service", "id"]
    assert lines[1].startswith(f"shop     0123456789abcdef  leaking   0.97  130 MB  512 MiB  {RATE}")
    assert lines[1].endswith("16 min  route GET /cart/{customer}")
    assert "mail" not in "".join(lines)
    assert lines[-1] == "The story of one: otel-memory explain 0123456789abcdef"


def test_no_leak_is_status_zero_and_says_how_to_see_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    with serve(Fake([healthy()])) as url:
        assert leaks.main(["--url", url]) == 0
        assert "`otel-memory leaks --all` lists them all" in capsys.readouterr().out
        assert leaks.main(["--url", url, "--all"]) == 0
    assert "mail" in capsys.readouterr().out


def test_the_verdict_counts_and_not_the_score_of_a_moment(capsys: pytest.CaptureFixture[str]) -> None:
    """A verdict has held; a gate that went by the score would open whenever that dips."""
    documents = [process(leak_score=0.4), process(id="f" * 16, service_name="maybe", verdict="watch", leak_score=0.9)]
    with serve(Fake(documents)) as url:
        assert leaks.main(["--url", url]) == 1
        assert "maybe" in capsys.readouterr().out
        assert leaks.main(["--url", url, "--threshold", "0.95"]) == 0
    with serve(Fake(documents[1:])) as url:
        assert leaks.main(["--url", url]) == 0


def test_all_lists_the_healthy_too_and_still_tells_of_the_leak() -> None:
    fake = Fake([process(), healthy()])
    with serve(fake) as url:
        assert leaks.main(["--url", url, "--all"]) == 1
        assert leaks.main(["--url", url, "--all", "--threshold", "0.99"]) == 0


def test_nothing_sent_yet_leads_to_the_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    with serve(Fake()) as url:
        assert leaks.main(["--url", url, "--all"]) == 0
    assert "otel-memory doctor" in capsys.readouterr().out


def test_every_page_is_read(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaks, "PAGE", 2)
    fake = Fake([healthy(id=f"{number:016x}") for number in range(5)])
    with serve(fake) as url:
        assert leaks.main(["--url", url, "--all", "--json"]) == 0
    assert [item["id"] for item in json.loads(capsys.readouterr().out)["items"]] == [f"{n:016x}" for n in range(5)]
    assert [params.get("cursor") for _, params in fake.asked] == [None, "2", "4"]


def test_an_analyzer_that_is_not_there_could_not_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert leaks.main(["--url", "http://127.0.0.1:1"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("otel-memory leaks: no analyzer answers at http://127.0.0.1:1")
    assert "mend:" in captured.err


@pytest.mark.parametrize("document", [{"items": [{"id": 1}]}, {"items": [{}]}, {"nothing": 1}])
def test_an_answer_that_makes_no_sense_could_not_run(document: object, capsys: pytest.CaptureFixture[str]) -> None:
    fake = Fake()
    fake.instead["/api/v1/leaks"] = fake.instead["/api/v1/processes"] = (200, document)
    with serve(fake) as url:
        assert leaks.main(["--url", url]) == 2
        assert leaks.main(["--url", url, "--json", "--threshold", "0.5"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err


@pytest.mark.parametrize("text", ["2", "-1", "nan", "half"])
def test_a_threshold_that_makes_no_sense_could_not_run(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        leaks.main([f"--threshold={text}"])
    assert stop.value.code == 2
    assert "is not a number from 0 to 1" in capsys.readouterr().err


# --- address and token ----------------------------------------------------------------------------------------


def test_address_and_token_come_from_flags_or_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with serve(Fake([process()], token="s3cret-token")) as url:
        assert leaks.main(["--url", url, "--token", "s3cret-token"]) == 1
        monkeypatch.setenv("OTEL_MEMORY_URL", url)
        monkeypatch.setenv("OTEL_MEMORY_TOKEN", "s3cret-token")
        assert leaks.main([]) == 1
        assert leaks.main(["--token", "another"]) == 2
    captured = capsys.readouterr()
    assert "does not accept this token" in captured.err
    assert "another" not in captured.err


def test_help_does_not_show_the_token(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("OTEL_MEMORY_TOKEN", "s3cret-token")
    monkeypatch.setenv("OTEL_MEMORY_URL", "")
    with pytest.raises(SystemExit) as stop:
        leaks.main(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert "s3cret" not in text
    assert "http://127.0.0.1:8431" in text


# --- every kind of output -------------------------------------------------------------------------------------

LONG = process(service_name="a-service-with-a-name-" * 6, suspects=[suspect(name="GET /" + "segment/" * 30)])


def test_a_pipe_gets_one_line_for_each_process_and_no_colour() -> None:
    text = shown(LONG, process())
    assert "\x1b" not in text
    lines = text.splitlines()
    assert len(lines) == 1 + 2 + 2
    assert "a-service-with-a-name-" * 6 in lines[1]
    assert "GET /" + "segment/" * 30 in lines[1]
    assert not any(line.endswith(" ") for line in lines)


@pytest.mark.parametrize("width", [20, 40, 80, 100, 118, 140, 400])
def test_a_terminal_of_any_width_is_never_overrun_and_loses_nothing(width: int) -> None:
    text = COLOUR.sub("", shown(LONG, healthy(), width=width, everything=True))
    assert max(map(len, text.splitlines())) <= width
    whole = "".join(text.split())
    assert "…" not in whole
    if width < 100:  # in a table the pieces of a folded cell lie apart
        assert "a-service-with-a-name-" * 6 in whole
        assert "segment/" * 30 in whole
    assert whole.count("segment/") == 30 or width >= 100
    assert "fedcba9876543210" in whole


def test_a_wide_terminal_has_a_table_with_colour_and_a_narrow_one_blocks() -> None:
    wide, narrow = shown(process(), width=140), shown(process(), width=60)
    assert "\x1b[1;31mleaking\x1b[0m" in wide
    assert "time to limit: 16 min" in narrow
    assert "time to limit: 16 min" not in wide


def test_no_color_means_no_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert "31m" not in shown(process(), width=140)


@pytest.mark.parametrize("width", [None, 60, 160])
def test_a_hostile_name_is_shown_and_does_nothing(width: int | None) -> None:
    text = COLOUR.sub("", shown(process(service_name=HOSTILE, suspects=[suspect(name=HOSTILE)]), width=width))
    assert not set(text) & {"\x1b", "\x07", "\u202e", "\x9b"}
    assert not any(line.lstrip().startswith("mend:") for line in text.splitlines())
    assert "[bold]" in text, "markup is not markup"


def test_json_is_what_the_analyzer_said_and_plain_ascii(capsys: pytest.CaptureFixture[str]) -> None:
    documents = [process(service_name=HOSTILE)]
    with serve(Fake(documents)) as url:
        assert leaks.main(["--url", url, "--json"]) == 1
    out = capsys.readouterr().out
    assert json.loads(out) == {"items": documents}
    assert out.isascii()
    assert "\x1b" not in out
