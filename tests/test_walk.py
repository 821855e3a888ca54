"""Every example of ``docs/walk`` runs, and prints what the page says.

A page is Markdown. What stands before its first ``##`` introduces it; each ``##`` section is one test, run in a folder
of its own:

- a block with ``title="NAME"`` (of any language) is written to the file NAME before anything runs,
- ``sh`` blocks are run one after the other by one shell with ``-e``, so that what one exports the next one has; the
  environment's programs come first on PATH, nothing of OpenTelemetry or of a proxy is set,
- a ``text`` block is what the ``sh`` block before it prints, standard error among it, line by line: ``…`` stands for
  anything within a line, and a line that is only ``…`` for any number of lines (none, too),
- a section that is not headed by a row (``## Limits``) may be prose alone,
- ``<!-- needs: MODULE -->`` skips the section where that module can't be imported.

Any other block would be an example that nobody ever ran, and is refused.
"""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Final

import psutil
import pytest

from tests.harness import wait_until
from tests.harness.process import Child, clean_environment

WALK: Final = Path(__file__).parent.parent / "docs" / "walk"
TIMEOUT_SECONDS: Final = 60.0
_FENCE: Final = re.compile(r"```(?P<language>[a-z]*)(?: +title=\"(?P<title>[^\"/]+)\")?[ ]*")
_NEEDS: Final = re.compile(r"<!-- needs: (?P<module>[a-z_0-9.]+) -->")


@dataclass(slots=True)
class Command:
    """One ``sh`` block: its text, and what it has to print, if the page says so."""

    script: str
    expected: str | None = None


@dataclass(slots=True)
class Section:
    """One ``##`` section of a page."""

    page: str
    heading: str
    files: dict[str, str] = field(default_factory=dict)
    commands: list[Command] = field(default_factory=list)
    needs: list[str] = field(default_factory=list)

    @property
    def id(self) -> str:
        return f"{self.page}: {self.heading}"


def sections(page: str, text: str) -> list[Section]:
    """The sections of a page.

    Raises:
        ValueError: a section has nothing to run, or a block that nothing would be done with; names line and section.
    """
    found: list[Section] = []
    section: Section | None = None
    block: list[str] | None = None
    last_was_sh = False
    language, title, began = "", "", 0
    for number, line in enumerate(text.splitlines(), 1):
        if block is None:
            opening = _FENCE.fullmatch(line)
            if opening:
                block, began, language, title = [], number, opening["language"], opening["title"] or ""
            elif line.startswith("```"):
                raise ValueError(f"{page}, line {number}: a block that can't be read: {line}")
            elif line.startswith("## "):
                section = Section(page, line[3:].strip())
                found.append(section)
                last_was_sh = False
            elif section and (needed := _NEEDS.search(line)):
                section.needs.append(needed["module"])
            continue
        if line != "```":
            block.append(line)
            continue
        content, block = "".join(f"{each}\n" for each in block), None
        if section is None:
            continue
        where = f"{page}, line {began}, in {section.heading!r}"
        if title:
            if title in section.files:
                raise ValueError(f"{where}: the file {title} stands there twice")
            section.files[title] = content
        elif language == "sh":
            section.commands.append(Command(content))
        elif language == "text" and last_was_sh:
            section.commands[-1].expected = content
        else:
            raise ValueError(f"{where}: a block is a file with a title, sh, or text after sh; this one is none of them")
        last_was_sh = language == "sh" and not title
    if block is not None:
        raise ValueError(f"{page}, line {began}: the block has no end")
    for section in found:
        if not section.commands and (section.files or re.match(r"A\d", section.heading)):
            raise ValueError(f"{page}, in {section.heading!r}: nothing to run")
    return [section for section in found if section.commands]


def matches(expected: str, printed: str) -> bool:
    """Whether ``printed`` is what a ``text`` block says. Blanks at the end of a line don't count."""
    patterns = [line.rstrip() for line in expected.strip("\n").split("\n")]
    lines = [line.rstrip() for line in printed.strip("\n").split("\n")]

    @cache
    def from_here(pattern: int, line: int) -> bool:
        if pattern == len(patterns):
            return line == len(lines)
        if patterns[pattern].strip() == "…":
            return from_here(pattern + 1, line) or (line < len(lines) and from_here(pattern, line + 1))
        return (
            line < len(lines)
            and bool(re.fullmatch(".*?".join(map(re.escape, patterns[pattern].split("…"))), lines[line]))
            and from_here(pattern + 1, line + 1)
        )

    # From the end, so that no recursion goes deep.
    for pattern in range(len(patterns), -1, -1):
        for line in range(len(lines), -1, -1):
            from_here(pattern, line)
    return from_here(0, 0)


def run(section: Section, folder: Path, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
    """Run a section in ``folder``, which has to be empty.

    Raises:
        AssertionError: it fails, prints something else, takes too long, or leaves a process behind; shows the output.
    """
    work, logs = folder / "work", folder / "output"
    work.mkdir()
    logs.mkdir()
    for name, content in section.files.items():
        (work / name).write_text(content, "utf-8")
    blocks = [logs / str(number) for number in range(len(section.commands))]
    # One shell for the whole section; what each block prints goes to a file of its own.
    script = "".join(
        f"exec >'{log}' 2>&1\n{command.script}" for log, command in zip(blocks, section.commands, strict=True)
    )
    (folder / "section.sh").write_text(script, "utf-8")
    environment = {
        name: value for name, value in clean_environment().items() if name.lower() not in ("http_proxy", "https_proxy")
    }
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    child = Child(["sh", "-e", str(folder / "section.sh")], env=environment, cwd=work, log=logs / "shell")
    try:
        in_time = child.wait(timeout_seconds)
        left = wait_until_alone(child.pid) if in_time else []
    finally:
        child.kill()
    for number, (log, command) in enumerate(zip(blocks, section.commands, strict=True), 1):
        printed = log.read_text("utf-8", "replace") if log.exists() else ""
        which = f"{section.id}\n--- block {number} ---\n{command.script}--- printed ---\n{printed}"
        is_last = number == len(blocks) or not blocks[number].exists()
        assert in_time or not is_last, f"{which}\n--- and has not ended within {timeout_seconds:g} s"
        assert child.status == 0 or not is_last, f"{which}\n--- and ended with status {child.status}"
        if command.expected is not None and not matches(command.expected, printed):
            raise AssertionError(f"{which}\n--- but the page says ---\n{command.expected}")
    assert not left, f"{section.id}: still running when the section had ended: {left}"


def wait_until_alone(group: int) -> list[str]:
    """The commands that still run in the process group after some grace; none is well."""
    try:
        wait_until(lambda: not in_group(group), timeout_seconds=3)
    except TimeoutError:
        return in_group(group)
    return []


def in_group(group: int) -> list[str]:
    found = []
    for process in psutil.process_iter():
        try:
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                found.append(" ".join(process.cmdline()))
        except (psutil.Error, OSError):
            continue
    return found


PAGES: Final = sorted(page for page in WALK.glob("*.md") if page.name != "README.md")


def runnable() -> list[Section]:
    """The sections of all pages that can be read; the others are for the test below."""
    found = []
    for page in PAGES:
        try:
            found += sections(page.stem, page.read_text("utf-8"))
        except ValueError:
            continue
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_can_be_run_whole(page: Path) -> None:
    assert sections(page.stem, page.read_text("utf-8"))


@pytest.mark.timeout(TIMEOUT_SECONDS + 30)
@pytest.mark.parametrize("section", runnable(), ids=lambda section: section.id)
def test_an_example_does_what_its_page_says(section: Section, tmp_path: Path) -> None:
    for module in section.needs:
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{section.id} needs the module {module}")
    run(section, tmp_path)


# --- the runner itself --------------------------------------------------------------------------------------

EXAMPLE = """# A page

```python
not = run
```

## One
```python title="app.py"
import os
print("one", os.environ["WHO"], os.getpid())
```
```sh
export WHO=me
echo first
```
Then
```sh
python app.py
```
which says
```text
one me …
```
"""


def test_a_section_is_run_in_one_shell_with_its_files(tmp_path: Path) -> None:
    (section,) = sections("page", EXAMPLE)
    assert section.id == "page: One"
    run(section, tmp_path)


@pytest.mark.parametrize(
    ("script", "expected", "said"),
    [
        ("echo other", "one", "but the page says"),
        ("echo one; false", "one", "status 1"),
        ("echo one; sleep 30", "one", "has not ended"),
        ("echo one; sleep 33 & :", "one", "still running"),
    ],
)
def test_what_goes_wrong_is_told_with_what_was_printed(script: str, expected: str, said: str, tmp_path: Path) -> None:
    timeout_seconds = 1.0 if said == "has not ended" else 30.0
    with pytest.raises(AssertionError, match=said):
        run(Section("page", "One", commands=[Command(f"{script}\n", expected)]), tmp_path, timeout_seconds)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("## A1 One\nprose alone\n", "nothing to run"),
        ("## One\n```python\nx\n```\n```sh\n:\n```\n", "none of them"),
        ("## One\n```text\nx\n```\n```sh\n:\n```\n", "none of them"),
        ("## One\n```sh\n:\n", "no end"),
        ('## One\n```py title="a"\n```\n```py title="a"\n```\n```sh\n:\n```\n', "twice"),
    ],
)
def test_a_page_that_nobody_could_run_is_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        sections("page", text)


@pytest.mark.parametrize(
    ("expected", "printed", "match"),
    [
        ("a\nb\n", "a\nb\n", True),
        ("a", "a\nb", False),
        ("a\n…\n", "a\nb\nc\n", True),
        ("a\n…\nc", "a\nc", True),
        ("…\nb\n…", "a\nb\nc", True),
        ("…\nd\n…", "a\nb\nc", False),
        ("pid … is [up].", "pid 17 is [up].  ", True),
        ("pid … is [up].", "pid 17 is u", False),
        ("    …\nend", "x\n  y\nend", True),
    ],
)
def test_a_page_says_what_is_printed_with_an_ellipsis_for_the_rest(expected: str, printed: str, match: bool) -> None:
    assert matches(expected, printed) is match
