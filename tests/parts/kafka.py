"""Apache Kafka from its published jars: a pom with one dependency, resolved by Maven into one folder."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from tests.parts.recipes import CachedRecipe
from tests.parts.steps import Steps, find_tool, require_tool

VERSION = "4.3.1"
SCALA = "2.13"
SLF4J = "1.7.36"
"""Of the slf4j-api that this Kafka brings. Without a logger behind it, a broker that fails says nothing at all."""
JAVA_MEND = "install Java 17 or newer and Maven (Debian: apt-get install default-jre-headless maven)"

POM = f"""\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>otel-memory</groupId>
  <artifactId>kafka-for-tests</artifactId>
  <version>1</version>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_{SCALA}</artifactId>
      <version>{VERSION}</version>
    </dependency>
    <dependency>
      <groupId>org.slf4j</groupId>
      <artifactId>slf4j-simple</artifactId>
      <version>{SLF4J}</version>
    </dependency>
  </dependencies>
</project>
"""


class KafkaRecipe(CachedRecipe):
    """Copies Kafka's runtime jars into ``libs``."""

    name = "kafka"
    title = f"Apache Kafka {VERSION}"
    cost = "about ten seconds, 44 MB"
    program = f"libs/kafka_{SCALA}-{VERSION}.jar"

    @property
    def key(self) -> str:
        return f"kafka-{VERSION}-{hashlib.sha256(POM.encode()).hexdigest()[:12]}"

    def build(self, folder: Path, steps: Steps) -> None:
        require_tool("java", JAVA_MEND)
        maven = require_tool("mvn", JAVA_MEND)
        (folder / "pom.xml").write_text(POM)
        argv = [maven, "-q", "-B", "dependency:copy-dependencies", "-DincludeScope=runtime", "-DoutputDirectory=libs"]
        steps.run("mvn copies the jars", argv, cwd=folder)
        shutil.rmtree(folder / "target", ignore_errors=True)

    def blocked(self) -> str | None:
        return None if find_tool("java") else f"there is no `java` on this machine; {JAVA_MEND}"
