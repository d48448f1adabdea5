"""Corpora as wholes, from the command line: listed, relocated, deleted."""

from __future__ import annotations

import shutil
from pathlib import Path

import psycopg

from ingest_pipeline.cli import _dagster, _session
from ingest_pipeline.config.corpus_config import CorpusConfig
from tests.support.dagster.cli import Cli
from tests.support.servers.embedding_server import NARROWING_MODEL, EmbeddingServer
from tests.support.world import paragraphs


def test_a_corpus_is_listed_relocated_and_deleted(
    tmp_path: Path, database_url: str, embeddings: EmbeddingServer
) -> None:
    cli = Cli.over(tmp_path, database_url, embeddings)
    assert cli.json("corpora") == []
    cli.put("a.txt", paragraphs("alpha", 2))
    # Without these settings they follow from the name of the model, which changes.
    counted = {"INGEST_TOKENIZER": "cl100k_base", "INGEST_EMBEDDING_MAX_TOKENS": "8191"}
    cli.json("ingest", **counted)
    cli.json("ingest", INGEST_CORPUS="other", **counted)
    shutil.copytree(tmp_path / "source", tmp_path / "mounted")
    shutil.copytree(tmp_path / "state" / "lancedb", tmp_path / "lake")
    embedded = embeddings.embedded

    moved = {
        **counted,
        "INGEST_SOURCE": str(tmp_path / "mounted"),
        "INGEST_LANCEDB_URI": str(tmp_path / "lake"),
        "INGEST_EMBEDDING_MODEL": NARROWING_MODEL,
    }
    refused = cli.run("ingest", INGEST_SOURCE=moved["INGEST_SOURCE"])
    assert (refused.exit_code, "relocate --source" in refused.stderr) == (2, True)
    assert cli.run("relocate").exit_code == 2
    assert cli.run("relocate", "--source", str(tmp_path / "nowhere")).exit_code == 2
    refused = cli.run("relocate", "--table", str(tmp_path / "lake" / "docs.lance"))
    assert (refused.exit_code, "Set --table to the folder that contains 'docs.lance'" in refused.stderr) == (2, True)
    told = cli.json(
        "relocate",
        *("--table", moved["INGEST_LANCEDB_URI"], "--source", moved["INGEST_SOURCE"]),
        *("--embedding-model", moved["INGEST_EMBEDDING_MODEL"]),
        **counted,
    )
    assert told["documents"] == 1
    embedded = embeddings.embedded
    assert cli.json("ingest", **moved)["published"] == 0
    assert embeddings.embedded == embedded
    assert cli.json("audit", **moved)["violations"] == []

    docs, other = cli.json("corpora")
    assert (docs["corpus"], docs["documents"], docs["table_uri"]) == ("docs", 1, f"{tmp_path}/lake/docs.lance")
    assert docs["source"] == moved["INGEST_SOURCE"]
    assert docs["embedding"] == f"{NARROWING_MODEL}/{embeddings.dimensions}"
    assert other["corpus"] == "other"
    assert "2 corpora" in cli.run("corpora").stdout

    assert cli.run("drop", "ghost", "--yes-delete", "ghost").exit_code == 2
    assert cli.run("drop", "docs", "--yes-delete", "other").exit_code == 2
    assert len(cli.json("corpora")) == 2
    dropped = cli.json("drop", "docs", "--yes-delete", "docs")
    assert (dropped["documents"], dropped["tables"], dropped["partitions"]) == (1, [f"{tmp_path}/lake/docs.lance"], 1)
    assert [one["corpus"] for one in cli.json("corpora")] == ["other"]
    assert cli.run("status").exit_code == 2
    settings = CorpusConfig.from_environment({**cli.environment})
    with _session.postgres(settings) as running, _dagster.instance(running) as instance:
        assert instance.get_dynamic_partitions("docs_documents") == []
        assert instance.get_dynamic_partitions("other_documents") == ["a.txt"]
    assert cli.json("ingest", **counted)["published"] == 1
    assert cli.json("audit", INGEST_CORPUS="other")["violations"] == []
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT corpus, table_name FROM ingest_pipeline.head ORDER BY 1").fetchall() == [
            ("docs", "docs-2"),
            ("other", "other"),
        ]
