"""The public API: its names, what it imports, and a plain script that uses it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pytest

import ingest_pipeline
from ingest_pipeline import CorpusConfig, DagsterOptions, build_resources, corpus_definitions, errors, open_corpus

_SCRIPT = Path(__file__).parents[3] / "examples" / "script.py"


def test_the_names_of_the_api_are_these_and_can_be_imported() -> None:
    assert ingest_pipeline.__all__ == [
        "BilledError",
        "ChunkEnricher",
        "ChunkEnrichment",
        "Chunker",
        "CorpusAtHead",
        "CorpusConfig",
        "CorpusResources",
        "CorpusSearchResource",
        "DagsterOptions",
        "DocumentSourceResource",
        "Embedder",
        "Embeddings",
        "EnrichableChunk",
        "EnrichableDocument",
        "Enricher",
        "Enrichment",
        "ExtractedDocument",
        "Gate",
        "GoldenQuestion",
        "IngestPipelineComponent",
        "OpenAIEmbedderResource",
        "OpenCorpus",
        "ParsedDocument",
        "Parser",
        "PostgresCatalogResource",
        "PreparedVersion",
        "RawDocument",
        "Reranker",
        "Scores",
        "Span",
        "TextPiece",
        "Usage",
        "VersionedLanceDBResource",
        "build_resources",
        "corpus_definitions",
        "errors",
        "open_corpus",
    ]
    assert all(getattr(ingest_pipeline, name) is not None for name in ingest_pipeline.__all__)
    assert set(ingest_pipeline.__all__) <= set(dir(ingest_pipeline))


@pytest.mark.parametrize(
    ("program", "absent"),
    [
        ("import ingest_pipeline", {"dagster", "lance", "lancedb", "pydantic", "psycopg", "openai"}),
        ("import ingest_pipeline; ingest_pipeline.open_corpus", {"dagster", "lancedb", "openai", "wordllama"}),
    ],
)
def test_the_root_imports_nothing_and_a_script_no_dagster(program: str, absent: set[str]) -> None:
    report = "; import sys; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", program + report], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) & absent == set()


def test_the_script_of_the_examples_ingests_and_searches(tmp_path: Path) -> None:
    assert len(_SCRIPT.read_text().splitlines()) <= 15
    source = tmp_path / "documents"
    source.mkdir()
    (source / "leave.md").write_text("Employees have thirty days of holiday in a year.")
    (source / "travel.md").write_text("Train tickets are paid by the company.")
    command = [sys.executable, str(_SCRIPT), str(source), str(tmp_path / "state"), "How much vacation do I get?"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    first, *hits = done.stdout.splitlines()
    assert first == "2 documents published"
    assert "leave.md" in hits[0]


def test_an_open_corpus_plans_ingests_rolls_back_and_audits(tmp_path: Path, database_url: str) -> None:
    source = tmp_path / "documents"
    source.mkdir()
    (source / "a.txt").write_text("alpha")
    config = CorpusConfig(corpus="docs", source=str(source), state=str(tmp_path / "state"), database_url=database_url)
    with open_corpus(config) as corpus:
        assert repr(corpus) == f"<OpenCorpus 'docs' of {source} in {tmp_path}/state/lancedb/docs.lance>"
        assert list(map(str, corpus.plan())) == ["add a.txt"]
        for call in (corpus.ingest, corpus.plan):
            with pytest.raises(errors.UnknownDocumentError, match=r"no document 'c\.txt'"):
                call("c.txt")
        with pytest.raises(errors.ConfigurationError, match="no corpus 'docs'"):
            corpus.history()
        assert str(corpus.ingest()) == "1 document published"
        (source / "a.txt").write_text("beta")
        (source / "b.txt").write_text("gamma")
        assert list(map(str, corpus.plan())) == ["replace a.txt", "add b.txt"]
        assert list(map(str, corpus.plan("b.txt"))) == ["add b.txt"]
        corpus.ingest()
        newest, oldest, created = corpus.history()
        assert [row.kind for row in (newest, oldest, created)] == ["ingest", "ingest", "create"]
        assert [change.published_version for change in corpus.document_history("a.txt")] == [
            newest.version,
            oldest.version,
        ]
        assert [hit.document for hit in corpus.search("gamma", where="key=b*")] == ["b.txt"]
        with pytest.raises(errors.ConfigurationError, match=r"no search mode 'fuzzy'\. Use one of vector"):
            corpus.search("gamma", mode="fuzzy")  # pyright: ignore[reportArgumentType]
        corpus.rollback(oldest.version, ["a.txt"])
        assert [hit.text for hit in corpus.search("alpha", mode="text")] == ["alpha"]
        assert corpus.plan() == []
        assert corpus.audit().violations == []


def test_a_closed_corpus_says_so_and_how_to_open_it(tmp_path: Path, database_url: str) -> None:
    source = tmp_path / "documents"
    source.mkdir()
    config = CorpusConfig(corpus="docs", source=str(source), state=str(tmp_path / "state"), database_url=database_url)
    with open_corpus(config) as corpus:
        corpus.ingest()
    calls: list[Callable[[], object]] = [
        corpus.ingest,
        corpus.plan,
        corpus.history,
        corpus.audit,
        partial(corpus.search, "alpha"),
        partial(corpus.document_history, "a.txt"),
        partial(corpus.rollback, 1),
        corpus.transaction("products", pa.schema({"sku": pa.string()})).__enter__,
    ]
    for call in calls:
        with pytest.raises(errors.ClosedError, match=r"is not open\. Use the corpus inside the block of `with open_co"):
            call()


def test_a_corpus_is_used_where_an_event_loop_runs_already(tmp_path: Path, database_url: str) -> None:
    """As in a notebook or an async service, whose loops cannot be nested."""
    source = tmp_path / "documents"
    source.mkdir()
    (source / "a.txt").write_text("alpha")
    config = CorpusConfig(corpus="docs", source=str(source), state=str(tmp_path / "state"), database_url=database_url)

    async def service() -> list[str]:
        with open_corpus(config) as corpus:
            corpus.ingest()
            # Without blocking the loop: an open corpus may be used by several threads.
            found = await asyncio.gather(*(asyncio.to_thread(corpus.search, "alpha", limit=1) for _ in range(3)))
            return [hit.document for hits in (corpus.search("alpha"), *found) for hit in hits]

    assert asyncio.run(service()) == ["a.txt"] * 4


def test_an_ingest_withholds_most_removals_until_they_are_confirmed(tmp_path: Path, database_url: str) -> None:
    source = tmp_path / "documents"
    source.mkdir()
    for number in range(6):
        (source / f"{number}.txt").write_text(f"text {number}")
    config = CorpusConfig(corpus="docs", source=str(source), state=str(tmp_path / "state"), database_url=database_url)
    with open_corpus(config) as corpus:
        corpus.ingest()
        for number in range(6):
            (source / f"{number}.txt").unlink()
        with pytest.raises(errors.RemovalsWithheldError):
            corpus.ingest()
        assert len(corpus.plan()) == 6
        corpus.ingest(confirm_removals=True)
        assert corpus.plan() == []


def test_a_transaction_publishes_a_table_of_the_users_own_or_nothing(tmp_path: Path, database_url: str) -> None:
    schema = pa.schema([pa.field("sku", pa.string(), nullable=False)])
    config = CorpusConfig(corpus="docs", source=str(tmp_path), state=str(tmp_path / "state"), database_url=database_url)
    with open_corpus(config) as corpus:
        with corpus.transaction("products", schema) as change:
            change.add(pa.table({"sku": ["A-1"]}, schema=schema))
        with suppress(ZeroDivisionError), corpus.transaction("products", schema) as change:
            change.delete("sku = 'A-1'")
            raise ZeroDivisionError
        with corpus.transaction("products", schema) as change:
            assert change.base_version == 2
        (tmp_path / "a.txt").write_text("alpha")
        corpus.ingest("a.txt")
        with pytest.raises(errors.CorpusMismatchError, match="'docs' belongs to the corpus of"):
            corpus.transaction("docs", schema).__enter__()
        with (
            open_corpus(config.replace(corpus="products")) as other,
            pytest.raises(errors.CorpusMismatchError, match="'products' belongs to a table of a user's own"),
        ):
            other.ingest()
        with (
            pytest.raises(errors.ConfigurationError, match="The table name 'Bad-Name' must be"),
            corpus.transaction("Bad-Name", schema),
        ):
            pass


def test_definitions_are_built_in_python_and_show_no_secret(tmp_path: Path) -> None:
    config = CorpusConfig(corpus="docs", source=str(tmp_path), state=str(tmp_path / "state"))
    definitions = corpus_definitions(config, options=DagsterOptions(group="texts", source_sensor=False))
    assert {sensor.name for sensor in definitions.sensors or ()} >= {"docs_source_sensor", "docs_recovery_sensor"}
    secret = config.replace(database_url="host=h password=hunter2")
    with pytest.raises(errors.ConfigurationError, match="contains a password") as caught:
        corpus_definitions(secret)
    assert "hunter2" not in str(caught.value)
    named = corpus_definitions(secret, build_resources(secret, database_url=dg.EnvVar("A_URL")))
    assert "hunter2" not in str(named.get_repository_def().get_top_level_resources())


def test_reading_commands_import_no_dagster_when_they_run(tmp_path: Path, database_url: str) -> None:
    source = tmp_path / "documents"
    source.mkdir()
    (source / "a.txt").write_text("alpha")
    state = str(tmp_path / "state")
    with open_corpus(CorpusConfig(corpus="docs", source=str(source), state=state, database_url=database_url)) as corpus:
        corpus.ingest()
    environment = {"INGEST_CORPUS": "docs", "INGEST_SOURCE": str(source), "INGEST_STATE": state}
    environment |= {"INGEST_DATABASE_URL": database_url}
    program = (
        "import sys; from ingest_pipeline.cli.main import main\n"
        "for arguments in (['status'], ['history'], ['plan'], ['search', 'alpha']):\n"
        "    main(arguments, standalone_mode=False)\n"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=True)
    heavy = {"dagster", "dagster_postgres", "sqlalchemy", "alembic", "lancedb", "openai", "kreuzberg", "moto"}
    assert set(done.stdout.splitlines()[-1].split()) & heavy == set()
