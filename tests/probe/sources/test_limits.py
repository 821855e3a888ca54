"""The limit that will really end the process: recorded trees, odd namespaces, this machine."""

from __future__ import annotations

import os
import subprocess
import sys

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_memory import names
from otel_memory.probe.sources.cgroups import MemoryCgroups, limit_v1, locate
from otel_memory.probe.sources.limits import (
    Limit,
    LimitsReading,
    LimitsSource,
    Pressure,
    PressureBounds,
    Stall,
    pressure_level,
    utilization,
)
from otel_memory.probe.sources.process_readings import ProcessReading

MiB, GiB = 1 << 20, 1 << 30
HOST = Limit(16384000 * 1024, "host")
SYSTEM_STALLS = (Stall("system", "some", 2.5), Stall("system", "full", 1.25))
USE = ProcessReading(rss_bytes=192 * MiB, virtual_bytes=96 * MiB)


def recorded(tree, use=USE, **kwargs) -> LimitsSource:
    return LimitsSource(lambda: use, proc_root=str(tree / "proc"), cgroup_root=str(tree), **kwargs)


# --- recorded trees -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tree", "configured", "limits", "high", "psi"),
    [
        ("host", None, [HOST], None, SYSTEM_STALLS),
        (
            "v2_nested",
            None,
            [Limit(GiB, "cgroup_v2"), HOST],
            768 * MiB,
            (*SYSTEM_STALLS, Stall("cgroup", "some", 0.75), Stall("cgroup", "full", 0.125)),
        ),
        (
            "v2_container",
            None,
            [Limit(256 * MiB, "cgroup_v2"), HOST],
            None,
            (*SYSTEM_STALLS, Stall("cgroup", "some", 0.0), Stall("cgroup", "full", 0.0)),
        ),
        ("v1_container", None, [Limit(512 * MiB, "cgroup_v1"), HOST], None, SYSTEM_STALLS),
        ("v1_nested", None, [Limit(2 * GiB, "cgroup_v1"), Limit(4 * GiB, "rlimit"), HOST], None, SYSTEM_STALLS),
        ("rlimit", None, [Limit(128 * MiB, "rlimit"), HOST], None, ()),
        ("v2_nested", 300 * MiB, [Limit(300 * MiB, "configured"), Limit(GiB, "cgroup_v2"), HOST], 768 * MiB, ...),
    ],
)
def test_every_limit_of_a_recorded_tree_is_found_and_the_smallest_is_the_limit(
    trees, tree, configured, limits, high, psi
):
    reading = recorded(trees / tree, configured_bytes=configured).read()
    assert reading.limits == tuple(limits)
    assert (reading.limit_bytes, reading.kind) == min(limits)
    assert reading.high_bytes == high
    assert reading.host_total == 16384000 * 1024
    if psi is not ...:
        assert reading.psi == psi


def test_a_configured_limit_above_the_true_one_does_not_hide_it(trees):
    reading = recorded(trees / "v2_container", configured_bytes=GiB).read()
    assert (reading.limit_bytes, reading.kind) == (256 * MiB, "cgroup_v2")


def test_of_two_equal_limits_the_more_particular_names_the_kind(trees):
    assert recorded(trees / "v2_container", configured_bytes=256 * MiB).read().kind == "configured"


def test_the_hosts_memory_and_what_an_old_kernel_does_not_tell(trees):
    reading = recorded(trees / "host").read()
    assert (reading.host_available, reading.host_utilization) == (4096000 * 1024, 0.75)
    old = recorded(trees / "rlimit").read()
    assert (old.host_available, old.host_utilization) == (None, None)


def test_an_address_space_limit_is_compared_with_virtual_memory_and_the_others_with_resident(trees):
    assert recorded(trees / "rlimit").utilization() == 0.75
    assert recorded(trees / "v2_container").utilization() == 0.75
    assert recorded(trees / "rlimit", ProcessReading(rss_bytes=MiB)).utilization() is None


def test_limits_are_read_again_at_their_cadence_because_they_change_in_place(trees, tmp_path, clock):
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "cgroup").write_text("0::/app\n")
    (tmp_path / "sys/fs/cgroup/app").mkdir(parents=True)
    maximum = tmp_path / "sys/fs/cgroup/app/memory.max"
    maximum.write_text("1000000\n")
    source = LimitsSource(
        lambda: USE, proc_root=str(tmp_path), cgroup_root=str(tmp_path), clock=clock, interval_seconds=10.0
    )
    assert source.latest().limit_bytes == 1000000
    maximum.write_text("2000000\n")
    clock.now += 9.9
    assert source.latest().limit_bytes == 1000000
    clock.now += 0.1
    assert source.latest().limit_bytes == 2000000
    (tmp_path / "self" / "cgroup").write_text("0::/\n")
    clock.now += 10
    assert source.latest().kind == "host", "the process was moved out of the cgroup"


def test_metrics_of_a_recorded_tree(trees, exported, gate, failures):
    undo = recorded(trees / "v2_container").register(exported.meter, gate)
    assert exported.points() == {
        names.MEMORY_LIMIT: {("cgroup_v2",): 256 * MiB},
        names.PROCESS_MEMORY_UTILIZATION: {("cgroup_v2",): 0.75},
        names.MEMORY_PRESSURE: {(): 1},
        names.PSI_STALL_TIME: {
            # by otel_memory.psi.kind, otel_memory.psi.scope
            ("some", "system"): 2.5,
            ("full", "system"): 1.25,
            ("some", "cgroup"): 0.0,
            ("full", "cgroup"): 0.0,
        },
        names.SYSTEM_MEMORY_LIMIT: {(): 16384000 * 1024},
        names.SYSTEM_MEMORY_AVAILABLE: {(): 4096000 * 1024},
        names.SYSTEM_MEMORY_UTILIZATION: {("used",): 0.75},
    }
    assert failures == []
    undo()
    assert exported.metrics() == []


def test_what_is_not_there_is_left_out(trees, exported, gate, failures):
    recorded(trees / "rlimit", ProcessReading()).register(exported.meter, gate)
    assert exported.names() == sorted([names.MEMORY_LIMIT, names.SYSTEM_MEMORY_LIMIT])
    assert failures == []


# --- where the directories are ------------------------------------------------------------------------------

V2 = "31 24 0:27 {root} {point} rw - cgroup2 cgroup2 rw"
V1 = "35 31 0:32 {root} {point} rw shared:4 master:2 - cgroup cgroup rw,memory"


@pytest.mark.parametrize(
    ("path", "mounts", "directories", "why"),
    [
        ("/a/b", [("/", "/cg")], ["/cg/a/b", "/cg/a", "/cg"], "the host: every level to the root of the mount"),
        ("/", [("/", "/cg")], ["/cg"], "in a namespace of its own"),
        ("/docker/x", [("/docker/x", "/cg")], ["/cg"], "the host's namespace, only the container's part mounted"),
        ("/docker/x/y", [("/docker/x", "/cg")], ["/cg/y", "/cg"], "a cgroup made within the container"),
        ("/docker/xy", [("/docker/x", "/cg")], ["/cg"], "x is no part of xy; what is mounted is its own"),
        ("/a/gone", [("/", "/cg")], ["/cg/a", "/cg"], "a level that can't be seen is passed over"),
        ("/../other", [("/..", "/cg")], ["/cg/other", "/cg"], "moved out of the namespace, and the mount with it"),
        ("/../other", [("/", "/cg")], ["/cg"], "moved out of the namespace: the mount is all there is"),
        ("/", [("/../..", "/host"), ("/", "/cg")], ["/cg"], "the host's mount besides: its own levels have no names"),
        ("/a", [("/", "/with space"), ("/a", "/cg")], ["/with space/a", "/with space", "/cg"], "two mounts"),
    ],
)
@pytest.mark.parametrize("version", [2, 1])
def test_the_directories_of_a_process(tmp_path, version, path, mounts, directories, why):
    for existing in ("cg/a/b", "cg/y", "cg/other", "with space/a", "host"):
        (tmp_path / existing).mkdir(parents=True)
    line = V2 if version == 2 else V1
    mountinfo = "\n".join(line.format(root=root, point=point.replace(" ", "\\040")) for root, point in mounts)
    cgroup = f"0::{path}\n" if version == 2 else f"5:cpu:/no\n4:cpu,memory:{path}\n1:name=memory:/no\n"
    found = locate(cgroup.encode(), mountinfo.encode(), str(tmp_path))
    expected = tuple(f"{tmp_path}{directory}" for directory in directories)
    assert (found.v2 if version == 2 else found.v1) == expected, why


def test_without_mountinfo_the_usual_places_are_looked_at(tmp_path):
    (tmp_path / "sys/fs/cgroup/memory/a").mkdir(parents=True)
    found = locate(b"4:memory:/a\n0::/\n", None, str(tmp_path))
    usual = f"{tmp_path}/sys/fs/cgroup"
    assert found == MemoryCgroups(v2=(usual,), v1=(f"{usual}/memory/a", f"{usual}/memory"))


def test_without_a_cgroup_there_is_none(tmp_path):
    assert locate(None, None, str(tmp_path)) == MemoryCgroups()
    assert locate(b"garbage\n\n:\n", b"garbage\n - \n", str(tmp_path)) == MemoryCgroups()


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_no_content_of_the_two_files_is_an_error(cgroup, mountinfo):
    locate(cgroup, mountinfo, "/nowhere")


@pytest.mark.parametrize(
    ("own", "stat", "parent", "limit", "why"),
    [
        ("1000000", "hierarchical_memory_limit 9223372036854771712", "500000", 1000000, "a parent that doesn't bind"),
        ("1000000", "hierarchical_memory_limit 800000", "9223372036854771712", 800000, "an unseen parent that binds"),
        ("9223372036854710272", "hierarchical_memory_limit 9223372036854710272", "1", None, "64 KiB pages' no-limit"),
        ("0", "", "700000", 700000, "0 is no limit to live under; no memory.stat, so the parents are asked"),
        ("", "hierarchical_memory_limit x", "", None, "nothing that can be read"),
    ],
)
def test_version_1_limits(tmp_path, own, stat, parent, limit, why):
    (tmp_path / "own").mkdir()
    (tmp_path / "own/memory.limit_in_bytes").write_text(own + "\n")
    (tmp_path / "own/memory.stat").write_text(stat + "\n")
    (tmp_path / "memory.limit_in_bytes").write_text(parent + "\n")
    assert limit_v1((f"{tmp_path}/own", str(tmp_path))) == limit, why
    assert limit_v1(()) is None


# --- this machine -------------------------------------------------------------------------------------------


def test_this_host_agrees_with_psutil():
    reading = LimitsSource(lambda: USE).read()
    memory = psutil.virtual_memory()
    assert reading.host_total == memory.total
    assert reading.host_available == pytest.approx(memory.available, rel=0.2)
    assert 0 < reading.limit_bytes <= memory.total


def test_without_proc_psutil_tells_the_hosts_memory(tmp_path):
    reading = LimitsSource(lambda: USE, proc_root=str(tmp_path), cgroup_root=str(tmp_path)).read()
    assert reading.host_total == psutil.virtual_memory().total
    assert reading.psi == ()


@pytest.mark.skipif(sys.platform == "win32", reason="no rlimits")
@pytest.mark.parametrize("proc_root", ["/proc", "/nowhere"])
def test_an_address_space_limit_of_this_process_is_seen(proc_root):
    program = (
        "import resource\n"
        "resource.setrlimit(resource.RLIMIT_AS, (1 << 30, resource.RLIM_INFINITY))\n"
        "from otel_memory.probe.sources.limits import LimitsSource\n"
        f"reading = LimitsSource(lambda: None, proc_root={proc_root!r}).read()\n"
        "assert (1 << 30, 'rlimit') in reading.limits, reading\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
    )
    assert (done.returncode, done.stderr) == (0, b"")


def writable_memory_cgroup() -> tuple[str, str] | None:
    """A cgroup of the machine under which this test may make one of its own, and the name of the limit's file."""
    with open("/proc/self/cgroup", "rb") as cgroup, open("/proc/self/mountinfo", "rb") as mountinfo:
        found = locate(cgroup.read(), mountinfo.read())
    for directories, limit in ((found.v1, "memory.limit_in_bytes"), (found.v2, "memory.max")):
        if directories and os.path.exists(f"{directories[0]}/{limit}") and os.access(directories[0], os.W_OK):
            return directories[0], limit
    return None


@pytest.mark.skipif(sys.platform != "linux", reason="no cgroups")
def test_a_limit_set_by_this_kernel_on_a_parent_cgroup_is_the_limit(tmp_path):
    """A child process goes into the inner of two real cgroups; the outer has the limit."""
    where = writable_memory_cgroup()
    if where is None:
        pytest.skip("no memory cgroup that this user may write to")
    outer = os.path.join(where[0], f"otel-memory-test-{os.getpid()}")
    inner = os.path.join(outer, "inner")
    try:
        os.mkdir(outer)
        with open(f"{outer}/{where[1]}", "w") as file:
            file.write(str(512 * MiB))
        os.mkdir(inner)
    except OSError as error:
        if os.path.isdir(outer):
            os.rmdir(outer)
        pytest.skip(f"cgroups can't be made here: {error}")
    program = (
        "import os, sys\n"
        "open(sys.argv[1] + '/cgroup.procs', 'w').write(str(os.getpid()))\n"
        "from otel_memory.probe.sources.limits import LimitsSource\n"
        "from otel_memory.probe.sources.process import ProcessSource\n"
        "source = LimitsSource(ProcessSource().latest)\n"
        "print(source.read().limit_bytes, source.read().kind)\n"
    )
    try:
        done = subprocess.run(
            [sys.executable, "-c", program, inner],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={**os.environ, "PYTHONPATH": os.getcwd()},
        )
    finally:
        os.rmdir(inner)
        os.rmdir(outer)
    assert done.stderr == ""
    kind = "cgroup_v1" if where[1] == "memory.limit_in_bytes" else "cgroup_v2"
    assert done.stdout.split() == [str(512 * MiB), kind]


# --- the judgement ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("share", "level"),
    [
        (0.0, Pressure.LOW),
        (0.5, Pressure.LOW),
        (0.6999, Pressure.LOW),
        (0.7, Pressure.MEDIUM),
        (0.85, Pressure.HIGH),
        (0.95, Pressure.CRITICAL),
        (1.7, Pressure.CRITICAL),
    ],
)
def test_a_level_begins_at_its_bound(share, level):
    assert pressure_level(share) is level


def test_bounds_can_be_set():
    bounds = PressureBounds(medium=0.1, high=0.2, critical=0.3)
    assert [pressure_level(share, bounds) for share in (0.05, 0.1, 0.2, 0.3)] == [0, 1, 2, 3]


def test_the_levels_bounds_of_a_source_are_its_own(trees):
    bounds = PressureBounds(medium=0.1, high=0.2, critical=0.3)
    assert recorded(trees / "v2_container").pressure() is Pressure.MEDIUM
    assert recorded(trees / "v2_container", bounds=bounds).pressure() is Pressure.CRITICAL
    assert recorded(trees / "v2_container", ProcessReading()).pressure() is None


def test_without_a_limit_there_is_no_share_of_it():
    assert utilization(LimitsReading(), USE) is None
