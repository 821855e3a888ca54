"""What emits the metrics of other runtimes: the OpenTelemetry Java agent, a Go and a Node program with theirs.

The programs stand in ``tests/programs/runtimes``; the Go and the Node one carry their lock files.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

from tests.parts.collector import GO_MEND
from tests.parts.kafka import JAVA_MEND
from tests.parts.recipes import CachedRecipe
from tests.parts.steps import Steps, find_tool, require_tool

PROGRAMS = Path(__file__).resolve().parents[1] / "programs" / "runtimes"
AGENT_VERSION = "2.25.0"
COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy"
NODE_MEND = "install Node.js 18 or newer with npm (Debian: apt-get install nodejs npm)"


def _digest(folder: Path) -> str:
    files = sorted(path for path in folder.iterdir() if path.is_file())
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:12]


class JavaAgentRecipe(CachedRecipe):
    """Copies the agent's one jar."""

    name = "java_agent"
    title = f"OpenTelemetry Java agent {AGENT_VERSION}"
    cost = "a few seconds, 24 MB"
    program = f"opentelemetry-javaagent-{AGENT_VERSION}.jar"

    @property
    def key(self) -> str:
        return f"java-agent-{AGENT_VERSION}"

    def build(self, folder: Path, steps: Steps) -> None:
        require_tool("java", JAVA_MEND)
        maven = require_tool("mvn", JAVA_MEND)
        artifact = f"io.opentelemetry.javaagent:opentelemetry-javaagent:{AGENT_VERSION}"
        argv = [maven, "-q", "-B", COPY, f"-Dartifact={artifact}", "-DoutputDirectory=."]
        steps.run("mvn copies the jar", argv, cwd=folder)

    def blocked(self) -> str | None:
        return None if find_tool("java") else f"there is no `java` on this machine; {JAVA_MEND}"


class GoEmitterRecipe(CachedRecipe):
    """Builds the Go program."""

    name = "go_emitter"
    title = "a Go program with OpenTelemetry's runtime instrumentation"
    cost = "about a minute and a half of downloads and compilation, 15 MB"
    program = "emitter"

    @property
    def key(self) -> str:
        return f"go-emitter-{_digest(PROGRAMS / 'go')}"

    def build(self, folder: Path, steps: Steps) -> None:
        go = require_tool("go", GO_MEND)
        env = {
            "GOWORK": "off",
            "GOFLAGS": f"{os.environ.get('GOFLAGS', '')} -buildvcs=false".strip(),
            "PATH": os.pathsep.join([os.path.dirname(go), os.environ.get("PATH", os.defpath)]),
        }
        argv = [go, "build", "-mod=readonly", "-trimpath", "-o", str(folder / self.program), "."]
        steps.run("go builds it", argv, cwd=PROGRAMS / "go", env=env)


class NodeEmitterRecipe(CachedRecipe):
    """Installs what the Node program needs, beside a copy of it."""

    name = "node_emitter"
    title = "a Node program with OpenTelemetry's runtime instrumentation"
    cost = "a few seconds, 21 MB"
    program = "node_modules/@opentelemetry/instrumentation-runtime-node/package.json"

    @property
    def key(self) -> str:
        return f"node-emitter-{_digest(PROGRAMS / 'node')}"

    def build(self, folder: Path, steps: Steps) -> None:
        npm = require_tool("npm", NODE_MEND)
        for path in (PROGRAMS / "node").iterdir():
            if path.is_file():
                shutil.copy(path, folder)
        steps.run("npm installs it", [npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts"], cwd=folder)

    def blocked(self) -> str | None:
        return None if find_tool("node") else f"there is no `node` on this machine; {NODE_MEND}"
