"""The file under the exporters: whole lines, bounded rotation, many processes, and disks that go and come back."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from otel_memory.exporters import rotated_file
from otel_memory.exporters.rotated_file import RotatedFile


def test_lines_follow_one_another_in_a_file_that_only_its_owner_reads(tmp_path: Path) -> None:
    file = RotatedFile(tmp_path / "a.jsonl", 1000, 2)
    file.append(b"one\n")
    file.append(b"two\n")
    assert file.path.read_bytes() == b"one\ntwo\n"
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600


def test_no_descriptor_stays_open(tmp_path: Path) -> None:
    before = sorted(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else pytest.skip("needs /proc")
    RotatedFile(tmp_path / "a", 10, 2).append(b"one\n")
    with pytest.raises(OSError, match="longer"):
        RotatedFile(tmp_path / "a", 2, 2).append(b"one\n")
    assert sorted(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(("keep", "kept"), [(0, ["9"]), (1, ["9", "8"]), (3, ["9", "8", "7", "6"])])
def test_old_files_are_numbered_and_the_oldest_goes(tmp_path: Path, keep: int, kept: list[str]) -> None:
    file = RotatedFile(tmp_path / "a", 5, keep)
    for number in range(10):
        file.append(f"{number}___\n".encode())
    found = [file.path, *(tmp_path / f"a.{number}" for number in range(1, keep + 1))]
    assert [path.read_text()[0] for path in found] == kept
    assert len(list(tmp_path.iterdir())) == keep + 1


def test_a_file_is_filled_before_it_is_rotated_and_never_longer_than_its_bound(tmp_path: Path) -> None:
    file = RotatedFile(tmp_path / "a", 100, 50)
    for number in range(100):
        file.append(f"{number:08}\n".encode())
    sizes = [path.stat().st_size for path in tmp_path.iterdir()]
    assert max(sizes) == 99
    assert sum(sizes) == 900


def test_a_line_longer_than_a_file_may_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"a line of 101 bytes .* which is 100"):
        RotatedFile(tmp_path / "a", 100, 1).append(b"x" * 100 + b"\n")


def test_after_a_torn_line_the_next_one_begins_on_a_line_of_its_own(tmp_path: Path) -> None:
    file = RotatedFile(tmp_path / "a", 1000, 1)
    file.path.write_bytes(b'{"whole":1}\n{"torn":')
    file.append(b'{"next":1}\n')
    assert file.path.read_bytes().split(b"\n") == [b'{"whole":1}', b'{"torn":', b'{"next":1}', b""]


def test_a_full_disk_leaves_no_half_line_and_writing_goes_on_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = RotatedFile(tmp_path / "a", 1000, 1)
    file.append(b"before\n")
    write, calls = os.write, []

    def full(descriptor: int, data: bytes) -> int:
        calls.append(data)
        if len(calls) == 1:
            return write(descriptor, data[:3])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(rotated_file.os, "write", full)
        with pytest.raises(OSError, match="No space left"):
            file.append(b"lost\n")
    file.append(b"after\n")
    assert file.path.read_bytes() == b"before\nafter\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_what_is_no_regular_file_is_refused() -> None:
    with pytest.raises(OSError, match="not a regular file"):
        RotatedFile(Path("/dev/full"), 1000, 1).append(b"x\n")


def test_neither_a_link_is_followed_nor_a_pipe_waited_for(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"precious\n")
    (tmp_path / "link").symlink_to(target)
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe"):
        with pytest.raises(OSError):
            RotatedFile(tmp_path / name, 1000, 1).append(b"x\n")
    assert target.read_bytes() == b"precious\n"


def test_a_folder_that_vanished_is_an_error_until_it_is_back(tmp_path: Path) -> None:
    folder = tmp_path / "mounted"
    file = RotatedFile(folder / "a", 1000, 1)
    with pytest.raises(FileNotFoundError):
        file.append(b"lost\n")
    folder.mkdir()
    file.append(b"kept\n")
    assert file.path.read_bytes() == b"kept\n"


def test_a_file_that_somebody_moved_away_is_made_anew(tmp_path: Path) -> None:
    file = RotatedFile(tmp_path / "a", 1000, 1)
    file.append(b"one\n")
    file.path.rename(tmp_path / "moved")
    file.append(b"two\n")
    assert file.path.read_bytes() == b"two\n"


def test_who_waits_too_long_for_another_process_gives_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rotated_file, "LOCK_SECONDS", 0.05)
    file = RotatedFile(tmp_path / "a", 1000, 1)
    with file.path.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(TimeoutError, match="other processes"):
            file.append(b"x\n")
    file.append(b"x\n")
    assert file.path.read_bytes() == b"x\n"


def test_many_processes_write_one_file_and_rotate_it_without_losing_or_mixing_a_line(tmp_path: Path) -> None:
    """40 kB in files of 1 kB, and all that was written is there, each line whole and once."""
    program = """
        import sys
        from pathlib import Path
        from otel_memory.exporters.rotated_file import RotatedFile
        file = RotatedFile(Path(sys.argv[1]), 1000, 1000)
        for number in range(200):
            file.append(f"{sys.argv[2]} {number:04} {'x' * 40}\\n".encode())
    """
    argv = [sys.executable, "-c", textwrap.dedent(program), str(tmp_path / "a")]
    writers = [subprocess.Popen([*argv, f"w{number}"], stderr=subprocess.PIPE) for number in range(4)]
    for writer in writers:
        assert writer.communicate(timeout=60)[1] == b""
    lines = [line for path in tmp_path.iterdir() for line in path.read_text().splitlines()]
    assert sorted(lines) == sorted(f"w{w} {number:04} {'x' * 40}" for w in range(4) for number in range(200))
    assert max(path.stat().st_size for path in tmp_path.iterdir()) <= 1000
