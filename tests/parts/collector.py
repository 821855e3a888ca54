"""The OpenTelemetry Collector, built by its own builder from ``collector-config/ocb-manifest.yaml``.

The builder's own ``go mod tidy`` asks for modules that only tests need and that can not always be had, so the
builder only writes the sources and the module file is written here from the manifest's lines.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from pathlib import Path

from tests.parts.recipes import CachedRecipe
from tests.parts.steps import Steps, require_tool

MANIFEST = Path(__file__).resolve().parents[2] / "collector-config" / "ocb-manifest.yaml"
VERSION = "0.155.0"
GO_MEND = "install Go 1.25 or newer (Debian: apt-get install golang; or put it at /usr/local/go)"


def module_file(manifest: str, version: str = VERSION) -> str:
    """The ``go.mod`` of the Collector that ``manifest`` describes."""
    modules = re.findall(r"gomod:\s*(\S+)\s+(v\S+)", manifest)
    modules.append(("go.opentelemetry.io/collector/otelcol", f"v{version}"))
    requires = "\n".join(f"\t{path} {revision}" for path, revision in modules)
    return f"module otelcol-memory\n\ngo 1.25.0\n\nrequire (\n{requires}\n)\n"


class CollectorRecipe(CachedRecipe):
    """Builds the Collector with Go; the key carries the manifest's digest."""

    name = "collector"
    title = f"OpenTelemetry Collector {VERSION}"
    cost = "about three minutes of Go compilation on two cores, 52 MB"
    program = "otelcol-memory"

    @property
    def key(self) -> str:
        return f"collector-{VERSION}-{hashlib.sha256(MANIFEST.read_bytes()).hexdigest()[:12]}"

    def build(self, folder: Path, steps: Steps) -> None:
        go = require_tool("go", GO_MEND)
        work = folder / "work"
        work.mkdir()
        tools = work / "bin"
        env = {
            "GOBIN": str(tools),
            "GOWORK": "off",
            # The folder may lie inside somebody's work tree (XDG_CACHE_HOME); stamping it would need git.
            "GOFLAGS": f"{os.environ.get('GOFLAGS', '')} -buildvcs=false".strip(),
            "PATH": os.pathsep.join([os.path.dirname(go), os.environ.get("PATH", os.defpath)]),
        }
        builder = f"go.opentelemetry.io/collector/cmd/builder@v{VERSION}"
        steps.run("go install the builder", [go, "install", builder], cwd=work, env=env)
        shutil.copy(MANIFEST, work / "manifest.yaml")
        argv = [str(tools / "builder"), "--config", "manifest.yaml", "--skip-compilation", "--skip-get-modules"]
        steps.run("write its sources", argv, cwd=work, env=env)
        sources = work / "_build"
        (sources / "go.mod").write_text(module_file(MANIFEST.read_text()))
        program = folder / self.program
        argv = [go, "build", "-mod=mod", "-trimpath", "-ldflags", "-s -w", "-o", str(program), "."]
        steps.run("go build (minutes when cold)", argv, cwd=sources, env=env)
        steps.run("ask its version", [str(program), "--version"], env=env)
        shutil.copy(MANIFEST, folder / "ocb-manifest.yaml")
        shutil.rmtree(work)
