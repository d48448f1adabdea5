"""The real command line, in this process or in one of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from ingest_pipeline.cli.main import main
from ingest_pipeline.postgres.durability import REQUIRE_FSYNC
from tests.support.dagster.preloaded import preloaded
from tests.support.servers.embedding_server import TEST_MODEL, EmbeddingServer


def environment_of(directory: Path, database_url: str, embeddings: EmbeddingServer) -> dict[str, str]:
    """The settings of a corpus that belongs to one test."""
    return {
        "INGEST_SOURCE": str(directory / "source"),
        "INGEST_STATE": str(directory / "state"),
        "INGEST_DATABASE_URL": database_url,
        "INGEST_CORPUS": "docs",
        "INGEST_MIN_AGE_SECONDS": "0",
        "INGEST_EMBEDDING_MODEL": TEST_MODEL,
        "INGEST_EMBEDDING_DIMENSIONS": str(embeddings.dimensions),
        "OPENAI_BASE_URL": embeddings.base_url,
        REQUIRE_FSYNC: "false",
    }


@dataclass(slots=True)
class Cli:
    directory: Path
    environment: dict[str, str] = field(default_factory=dict[str, str])

    @classmethod
    def over(cls, directory: Path, database_url: str, embeddings: EmbeddingServer) -> Cli:
        """A command line whose corpus, database and endpoint belong to one test."""
        (directory / "source").mkdir()
        return cls(directory, environment_of(directory, database_url, embeddings))

    def put(self, key: str, text: str) -> Path:
        path = self.directory / "source" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def run(self, *arguments: str, **environment: str) -> Result:
        """Run a command in this process, which saves the seconds that imports take."""
        return CliRunner(env={**self.environment, **environment}).invoke(main, list(arguments), catch_exceptions=False)

    def spawn(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command in a process of its own, which may be killed."""
        return subprocess.run(
            [sys.executable, "-m", "ingest_pipeline.cli.main", *arguments],
            env=preloaded({**os.environ, **self.environment, **environment}),
            cwd=self.directory,
            capture_output=True,
            text=True,
            check=False,
        )

    def json(self, *arguments: str, **environment: str) -> Any:
        """The value that a successful command prints with ``--json``."""
        done = self.run(*arguments, "--json", **environment)
        assert done.exit_code == 0, done.stderr
        return json.loads(done.stdout)
