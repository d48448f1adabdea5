"""A golden set at head, at an earlier version and at the version of a saga, from the command line and from Python."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ingest_pipeline import GoldenQuestion, open_corpus
from ingest_pipeline.config.corpus_config import CorpusConfig
from ingest_pipeline.errors import ConfigurationError, VersionGoneError
from tests.support.dagster.cli import Cli, environment_of
from tests.support.servers.embedding_server import EmbeddingServer
from tests.support.world import World

QUESTIONS = [
    {"query": "alpha words", "documents": ["alpha.txt"]},
    {"query": "beta words", "documents": ["beta.txt"]},
]


@pytest.fixture
def edited(world: World) -> World:
    """A corpus whose second publication loses what one question expects."""
    for name in ("alpha", "beta", "gamma"):
        world.put(f"{name}.txt", f"{name} words")
    world.ingest()
    world.put("beta.txt", "nothing of the kind")
    world.ingest()
    return world


def golden_set(directory: Path) -> str:
    file = directory / "golden.jsonl"
    file.write_text("\n".join(map(json.dumps, QUESTIONS)))
    return str(file)


def test_versions_and_sagas_are_scored_and_compared(edited: World, tmp_path: Path, embeddings: EmbeddingServer) -> None:
    variables = environment_of(tmp_path, edited.database.url, embeddings)
    cli = Cli(tmp_path, variables | {"INGEST_LANCEDB_URI": edited.settings.lancedb_uri})
    file, head = golden_set(tmp_path), edited.head
    saga = edited.corpus.head().head_saga
    before = embeddings.embedded
    found = cli.json("eval", "--golden-set", file, "--version", str(saga), "--against", str(head - 1), "--k", "1")
    assert embeddings.embedded - before == len(QUESTIONS)
    assert (found["version"], found["recall"], found["against"]["version"]) == (head, 0.5, head - 1)
    assert (found["against"]["recall"], found["against"]["ndcg"], found["against"]["mrr"]) == (1.0, 1.0, 1.0)
    done = cli.run("eval", "--version", str(head), "--against", str(head - 1), "--k", "1", INGEST_GOLDEN_SET=file)
    assert f"Version {head}: recall@1 0.500, nDCG@1 0.500, MRR 0.500 over 2 questions, by hybrid search" in done.stdout
    assert "Recall changed by -0.500; 1 question changed" in done.stdout
    assert "beta words" in done.stdout
    assert cli.run("eval").exit_code == 2
    wrong = cli.run("eval", "--golden-set", file, "--version", "00000000-0000-0000-0000-000000000000")
    assert "published no version of corpus 'docs'" in wrong.stderr


def test_python(edited: World, embeddings: EmbeddingServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "key")
    config: CorpusConfig = edited.settings.replace(
        database_url=edited.database.url, embedding_base_url=embeddings.base_url, golden_k=1
    )
    questions = [GoldenQuestion("beta words", documents=("beta.txt",))]
    with open_corpus(config) as corpus:
        now, then = corpus.evaluate(questions), corpus.evaluate(questions, version=edited.head - 1)
        assert (now.version, now.recall, then.recall) == (edited.head, 0.0, 1.0)
        assert now.missed[0].missing == ("beta.txt",)
        assert len(now.changed_since(then)) == 1
        assert corpus.evaluate(golden_set(tmp_path), mode="text", k=3).recall == 0.5
        edited.corpus.table.remove_versions([edited.head - 1])
        with pytest.raises(VersionGoneError):
            corpus.evaluate(questions, version=edited.head - 1)
        with pytest.raises(ConfigurationError, match="There is no golden set"):
            corpus.evaluate()
