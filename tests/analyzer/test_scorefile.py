"""``otel-memory score FILE``: every form of file gives the same answer, and a bad one is refused in words."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from google.protobuf.json_format import MessageToJson
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from otel_memory.analyzer.scorefile import command, plot, reading
from otel_memory.analyzer.scorefile.reading import Columns, Unreadable, read
from otel_memory.analyzer.scoring import score
from tests.analyzer.made_up import MadeUp

EPOCH = 1_750_000_000
SECONDS = np.arange(0, 6 * 3600, 60)
RNG = np.random.default_rng(4)
LEAK = np.round(1e8 + 3000.0 * SECONDS + RNG.normal(0, 2e5, len(SECONDS)))
LEVEL = np.round(1e8 + RNG.normal(0, 2e5, len(SECONDS)))
LIMIT = 512 << 20


def rows() -> list[dict[str, Any]]:
    """Two services: ``shop`` leaks, ``mail`` does not."""
    return [
        {"service": name, "time": EPOCH + int(second), "value": value}
        for second, *values in zip(SECONDS, LEAK, LEVEL, strict=True)
        for name, value in zip(("shop", "mail"), values, strict=True)
    ]


def csv_text(of: Sequence[dict[str, Any]]) -> str:
    return "\n".join([",".join(of[0]), *(",".join(str(cell) for cell in row.values()) for row in of)]) + "\n"


def prometheus(of: Sequence[dict[str, Any]]) -> str:
    result = [
        {
            "metric": {"__name__": "process_resident_memory_bytes", "service": name},
            "values": [[row["time"], str(row["value"])] for row in of if row["service"] == name],
        }
        for name in ("shop", "mail")
    ]
    return json.dumps({"status": "success", "data": {"resultType": "matrix", "result": result}})


FORMS: dict[str, Callable[[Sequence[dict[str, Any]]], str]] = {
    "CSV": csv_text,
    "JSON lines": lambda of: "\n".join(json.dumps(row) for row in of),
    "JSON rows": lambda of: json.dumps(list(of), indent=1),
    "Prometheus range query": prometheus,
}


@pytest.fixture
def file(tmp_path: Path) -> Callable[[str | bytes], Path]:
    def write(content: str | bytes) -> Path:
        path = tmp_path / "series"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("zipped", [False, True])
def test_every_form_gives_the_same_answer(
    form: str, zipped: bool, file: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    content = FORMS[form](rows()).encode()
    path = file(gzip.compress(content) if zipped else content)
    assert command.main([str(path), "--json", "--limit", "512MiB"]) == 1
    answer = json.loads(capsys.readouterr().out)
    assert answer["form"] == form
    shop, mail = answer["items"]
    assert "shop" in shop["name"]
    assert "mail" in mail["name"]
    alone = score(EPOCH + SECONDS.astype(float), LEAK, limit=LIMIT)
    assert shop["leak_score"] == pytest.approx(alone.score)
    assert shop["leak_score"] >= 0.8
    assert shop["growth_bytes_per_second"] == pytest.approx(3000, rel=0.05)
    left = (LIMIT - LEAK[-1]) / 3000
    assert shop["time_to_limit_seconds"]["low"] <= left <= shop["time_to_limit_seconds"]["high"]
    assert mail["leak_score"] < 0.5
    assert mail["time_to_limit_seconds"] is None
    assert mail["forecast_reason"] == "memory does not grow"


def test_otlp_lines_carry_limit_requests_and_names(
    file: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    leaking, level = MadeUp(), MadeUp(instance="calm", leak_per_call=0)
    lines = []
    for index in range(240):
        request = leaking.request(index)
        level.add_to(request, index)
        lines.append(MessageToJson(request, indent=None))
    lines.insert(100, "{broken")
    path = file("\n".join(lines))
    assert command.main([str(path), "--json"]) == 1
    answer = json.loads(capsys.readouterr().out)
    assert (answer["form"], answer["refused"]) == ("OTLP JSON", 1)
    worst, best = answer["items"]
    assert worst["name"] == "shop made-up-1"
    assert worst["leak_score"] >= 0.8
    assert worst["time_to_limit_seconds"] is not None
    assert any("requests" in reason for reason in worst["reasons"])
    assert best["leak_score"] < 0.5


@pytest.mark.parametrize(
    ("write", "unit"),
    [
        (lambda second: str(EPOCH + second), "s"),
        (lambda second: str((EPOCH + second) * 1000), "ms"),
        (lambda second: str((EPOCH + second) * 10**6), "us"),
        (lambda second: str((EPOCH + second) * 10**9), "ns"),
        (lambda second: datetime.fromtimestamp(EPOCH + second, UTC).isoformat(), "offset"),
        (lambda second: datetime.fromtimestamp(EPOCH + second, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), "Z"),
        (lambda second: datetime.fromtimestamp(EPOCH + second, UTC).strftime("%Y-%m-%d %H:%M:%S"), "naive"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_times_of_every_kind(write: Callable[[int], str], unit: str, file: Callable[..., Path]) -> None:
    path = file("Timestamp,RSS\n" + "".join(f"{write(second)},{5e7 + second}\n" for second in range(50)))
    (one,) = read(path, Columns()).series
    assert one.series.times.tolist() == pytest.approx([EPOCH + second for second in range(50)], abs=1e-3)


def test_columns_by_name_units_and_covariates(file: Callable[..., Path]) -> None:
    lines = [f"a,{s},{100 + s},{s * 3},{EPOCH},512" for s in range(60)]
    path = file("run,clock,used,requests,start_time,limit\n" + "\n".join(lines))
    (one,) = read(path, Columns(time="clock", value="used", by=("run",), scale=1e6)).series
    assert one.name == "a"
    assert one.series.values[0] == 100e6
    assert one.series.limit == 512e6
    assert one.series.covariates is not None
    assert one.series.covariates["requests"][-1] == 177
    with pytest.raises(Unreadable, match="name it with --time"):
        read(path, Columns(value="used"))
    with pytest.raises(Unreadable, match=r"no column 'nothing'.*There are: run"):
        read(path, Columns(time="clock", value="nothing"))


def test_rows_that_tell_nothing_are_counted_and_the_rest_is_judged(
    file: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    lines = csv_text([row for row in rows() if row["service"] == "shop"]).splitlines()
    lines[10:10] = ["shop,never,1", "shop,,", "shop", "shop,1750000000,nan", "shop,inf,5", "shop,1750000000,lots"]
    assert command.main([str(file("\n".join(lines)))]) == 1
    out = capsys.readouterr().out
    assert "leaking" in out
    assert "6 rows or points could not be used" in out
    assert "no forecast: no limit is known" in out


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty"),
        (b"time,value\n", "empty"),
        (b"\xff\xfe\x00\x01", "no text in UTF-8"),
        (b"{", "neither JSON lines nor a JSON document"),
        (b"[1, 2]", "neither rows, nor OTLP"),
        (b'{"status": "error", "data": {"resultType": "matrix"}, "error": "bad query"}', "bad query"),
        (
            b'{"status": "error", "errorType": "bad_data", "error": "parse error at char 3"}',
            "answered with an error: parse",
        ),
        (b'{"status": "success", "data": {"resultType": "vector", "result": []}}', "query_range"),
        (b'{"status": "success", "data": {"resultType": "matrix", "result": []}}', "no series"),
        (b'{"resourceMetrics": []}', "no series"),
        (b"a,b\n1,2\n", "no column that is called like time"),
        (b"time,value\nx,y\n", "1 rows could not be used"),
        (gzip.compress(b"time,value\n1,2\n" * 500)[:40], "gzip"),
        (b"\x1f\x8b" + b"rubbish" * 10, "can't be read"),
    ],
)
def test_what_can_not_be_read_is_refused_in_words(
    content: bytes, said: str, file: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main([str(file(content))]) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.out == ""


def test_a_file_that_is_not_there_and_arguments_that_make_no_sense(
    tmp_path: Path, file: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main([str(tmp_path / "none")]) == 2
    assert "No such file" in capsys.readouterr().err
    assert command.main([str(tmp_path)]) == 2
    path = str(file(csv_text(rows())))
    for wrong in (["--limit", "much"], ["--limit", "0"], ["--threshold", "2"], ["--unit", "ell"], ["--plot", "x.pdf"]):
        with pytest.raises(SystemExit) as stopped:
            command.main([path, *wrong])
        assert stopped.value.code == 2


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_a_picture_is_drawn_and_is_the_same_again(
    suffix: str, tmp_path: Path, file: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    path = str(file(csv_text(rows())))
    first, second = tmp_path / f"one{suffix}", tmp_path / f"two{suffix}"
    for out in (first, second):
        assert command.main([path, "--plot", str(out), "--limit", "512MiB"]) == 1
    assert f"drawn to {second}" in capsys.readouterr().out
    assert first.read_bytes() == second.read_bytes()
    if suffix == ".svg":
        ElementTree.fromstring(first.read_bytes())
    else:
        assert first.read_bytes().startswith(b"\x89PNG")
    assert command.main([path, "--plot", str(tmp_path / "no" / f"folder{suffix}")]) == 2


def test_without_matplotlib_it_says_what_to_install(
    file: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert command.main([str(file(csv_text(rows()))), "--plot", str(tmp_path / "x.png")]) == 2
    assert "otel-memory[plot]" in capsys.readouterr().err


def test_names_of_a_file_can_not_play_with_the_terminal(
    file: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    wild = [{"service": "a\x1b[2J$x", "time": row["time"], "value": row["value"]} for row in rows()[::2]]
    assert command.main([str(file(FORMS["JSON lines"](wild)))]) == 1
    assert "\x1b" not in capsys.readouterr().out


def test_progress_is_for_large_files_and_people(
    file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(file(csv_text(rows())))
    command.main([path])
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(command, "LARGE", 1)
    monkeypatch.setattr(command, "MANY", 1)
    monkeypatch.setattr(command, "_EVERY_SECONDS", 0.0)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    command.main([path])
    assert "read 100 %" in capsys.readouterr().err


def test_as_a_program(file: Callable[..., Path]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "otel_memory", "score", str(file(csv_text(rows())))],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert done.stdout.splitlines()[-1] == "2 series (CSV): 1 leaking, 1 healthy"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_no_file_ends_in_an_exception(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "fuzz"
    for one in (content, b"time,value\n" + content, b'{"time": 1, "value": 2}\n' + content, b"[" + content + b"]"):
        path.write_bytes(one)
        assert command.main([str(path), "--json"]) in {0, 1, 2}


def test_the_worst_come_first_and_pictures_are_bounded() -> None:
    assert plot.MOST <= 50
    assert reading.MAX_SERIES == 1_000_000
