"""Each gate over a prepared publication: what it finds, what it names, and that readers see nothing of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ingest_pipeline.chunking.content_defined import Chunker
from ingest_pipeline.errors import ConfigurationError
from ingest_pipeline.ingestion.summary import Summary
from ingest_pipeline.types import Finding
from tests.support.servers.embedding_server import EmbeddingServer
from tests.support.world import World, paragraphs

pytestmark = pytest.mark.promise("gates")

NAMES = ("alpha", "beta", "gamma", "delta")


@pytest.fixture
def seen(world: World) -> World:
    """Four documents at head."""
    for name in NAMES:
        world.put(f"{name}.txt", f"{name} words")
    world.ingest()
    return world


def gated(world: World, **gates: Any) -> World:
    return World(world.database, world.settings.replace(**gates), world.embeddings)


def found(summary: Summary) -> dict[str, Finding]:
    return {finding.figure: finding for judgement in summary.judgements for finding in judgement.findings}


def golden(directory: Path, *names: str) -> str:
    file = directory / "golden.jsonl"
    questions = [{"query": f"{name} words", "documents": [f"{name}.txt"]} for name in names]
    file.write_text("\n".join(map(json.dumps, questions)))
    return str(file)


@pytest.mark.parametrize("mode", ["vector", "text", "hybrid"])
def test_the_golden_set_is_searched_in_the_unpublished_version(seen: World, tmp_path: Path, mode: str) -> None:
    file = golden(tmp_path, "alpha", "beta", "never was")
    world = gated(seen, golden_set=file, golden_k=1, golden_mode=mode, gate_min_recall=0.9, gate_max_recall_drop=0.2)
    head, files = world.head, world.corpus.table.all_files()
    world.put("beta.txt", "another text")
    world.put("epsilon.txt", "epsilon words")
    summary = world.ingest()
    figures = found(summary)
    assert len(summary.blocked) == 1
    assert (figures["recall"].value, figures["recall"].passed, figures["recall"].ids) == (0.5, False, ("beta words",))
    assert (figures["recall_at_head"].value, figures["recall_drop"].value) == (1.0, 0.5)
    assert figures["recall_drop"].ids == ("beta words",)
    assert figures["questions"].value == 2, "a question whose document never was in the corpus is not counted"
    assert world.head == head
    new = world.corpus.table.all_files() - files
    assert {name.partition("/")[0] for name in new} <= {"data", "_spool"}, "nothing is left of the candidate"
    world.put("beta.txt", "beta words\n")
    good = world.ingest()
    assert (good.blocked, found(good)["recall"].value) == ([], 1.0)
    world.ingest()
    world.check_nothing_left()


def test_questions_are_embedded_once_a_run_and_without_a_gate_not_at_all(
    seen: World, tmp_path: Path, embeddings: EmbeddingServer
) -> None:
    world = gated(seen, golden_set=golden(tmp_path, *NAMES), golden_mode="vector")
    world.put("new.txt", "new words")
    before = embeddings.embedded
    world.ingest()
    assert embeddings.embedded - before == 1 + len(NAMES)
    ungated = gated(seen, golden_set=None)
    ungated.put("new.txt", "newer words")
    ungated.ingest()
    assert embeddings.embedded - before == 2 + len(NAMES)


def test_the_first_publications_of_a_corpus_are_judged_by_what_they_have(world: World, tmp_path: Path) -> None:
    first = gated(world, golden_set=golden(tmp_path, "alpha", "beta"), golden_k=1, gate_min_recall=1, gate_max_drift=0)
    first.put("alpha.txt", "alpha words")
    figures = found(first.ingest())
    assert (figures["recall"].value, figures["questions"].value) == (1.0, 1)
    assert "drift" not in figures
    first.remove("alpha.txt")
    first.put("beta.txt", "beta words")
    lost = found(first.ingest())
    assert (lost["recall"].value, lost["recall"].ids) == (0.5, ("alpha words",)), "what was at head counts"


def test_empty_duplicate_and_long_chunks(seen: World) -> None:
    world = gated(seen, gate_max_empty=0.1, gate_max_duplicates=0.1, gate_max_long=0.1, gate_long_characters=500)
    world.put("rule.txt", "-" * 60)
    world.put("same.txt", "the same words")
    world.put("also.txt", "the same words")
    world.put("long.txt", "long words " * 60)
    figures = found(world.ingest())
    expected = {"empty": "rule.txt", "duplicates": "same.txt", "long": "long.txt"}
    for figure, key in expected.items():
        finding = figures[figure]
        assert (finding.value, finding.limit, finding.passed) == (0.25, 0.1, False)
        assert len(finding.ids) == 1, key
    row = world.database
    with row.transaction() as connection:
        ids = {
            str(one["id"]): one["document"]
            for one in connection.execute(
                "SELECT c.id, c.document FROM ingest_pipeline.chunk c JOIN ingest_pipeline.saga s ON s.id = c.saga "
                "WHERE s.state = 'blocked'"
            )
        }
    assert [ids[figures[figure].ids[0]] for figure in expected] == list(expected.values())
    relaxed = gated(seen, gate_max_empty=0.25, gate_max_duplicates=0.25, gate_max_long=0.25, gate_long_characters=500)
    relaxed.put("rule.txt", "=" * 60)
    relaxed.put("same.txt", "the same words.")
    relaxed.put("also.txt", "the same words.")
    relaxed.put("long.txt", "long words. " * 60)
    assert relaxed.ingest().blocked == []


def test_lost_and_removed_documents(seen: World) -> None:
    world = gated(seen, gate_max_lost=1, gate_max_removed=0.25)
    world.put("alpha.txt", "")
    world.remove("beta.txt")
    figures = found(world.ingest())
    assert (figures["lost"].value, figures["lost"].passed, figures["removed"].value) == (1, True, 0.25)
    world.put("gamma.txt", "")
    world.put("delta.txt", "")
    figures = found(world.ingest())
    assert (figures["lost"].value, figures["lost"].ids) == (2, ("delta.txt", "gamma.txt"))


def test_drift_of_the_mean_vector(seen: World) -> None:
    world = gated(seen, gate_max_drift=2.0)
    world.put("epsilon.txt", "epsilon words")
    small = found(world.ingest())["drift"].value
    for name in NAMES:
        world.put(f"{name}.txt", f"{name} has quite another text by now")
    large = found(world.ingest())["drift"].value
    assert 0 < small < large < 2
    strict = gated(seen, gate_max_drift=large / 2)
    for name in NAMES:
        strict.put(f"{name}.txt", f"{name} words")
    assert len(strict.ingest().blocked) == 1


def test_a_gate_of_the_user_reads_the_prepared_version(seen: World) -> None:
    world = gated(seen, gate="tests.support.gates.NoDrafts")
    world.put("alpha.txt", "alpha draft")
    world.remove("beta.txt")
    summary = world.ingest()
    (finding,) = summary.judgements[0].findings
    assert (finding.figure, finding.value, finding.limit, finding.passed) == (
        "tests.support.gates.NoDrafts",
        2,
        0,
        False,
    )
    assert finding.ids == ("alpha.txt", "head has 4 chunks, ['alpha.txt'] published, ['beta.txt'] removed")
    world.put("alpha.txt", "alpha is done")
    assert len(world.ingest().publications) == 1


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("Raises", "raised RuntimeError"),
        ("Hangs", "took more than 0.2 seconds"),
        ("SaysNumber", "returned a int, not a list of texts"),
    ],
)
def test_a_gate_that_fails_lets_nothing_pass(seen: World, name: str, problem: str) -> None:
    world = gated(seen, gate=f"tests.support.gates.{name}")
    world.put("alpha.txt", "alpha again")
    (finding,) = world.ingest().judgements[0].findings
    assert not finding.passed
    assert problem in finding.ids[0]


def test_indexed_tables_are_judged_alike(seen: World, tmp_path: Path) -> None:
    from ingest_pipeline.lance.indices import IndexKind  # noqa: PLC0415
    from ingest_pipeline.maintenance.indexing import update_indices  # noqa: PLC0415

    update_indices(seen.corpus, (IndexKind("text", "INVERTED", least=1, tail=0),))
    world = gated(seen, golden_set=golden(tmp_path, *NAMES, "zeta"), golden_k=1, gate_min_recall=1, golden_mode="text")
    world.put("zeta.txt", "zeta words")
    world.put("alpha.txt", "another text")
    figures = found(world.ingest())
    assert (figures["recall"].value, figures["recall"].ids) == (0.8, ("alpha words",))


def test_a_malformed_golden_set_stops_the_run_before_anything_is_embedded(
    seen: World, tmp_path: Path, embeddings: EmbeddingServer
) -> None:
    file = tmp_path / "golden.jsonl"
    file.write_text("{")
    world = gated(seen, golden_set=str(file))
    world.put("alpha.txt", paragraphs("alpha", 3))
    before = embeddings.requests
    with pytest.raises(ConfigurationError, match="cannot be read"):
        world.ingest()
    assert embeddings.requests == before
    assert isinstance(world.context.chunker, Chunker)


def test_a_limit_on_the_recall_needs_a_golden_set(world: World) -> None:
    assert world.settings.gates is None
    world.put("alpha.txt", "alpha words")
    with pytest.raises(ConfigurationError, match="has a limit on the recall, and no golden set"):
        gated(world, gate_min_recall=0.5).ingest()
    assert world.embeddings.requests == 0
