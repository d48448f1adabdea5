"""No text that is sent exceeds the limit of its model, nothing of a document is lost, and edits stay local."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ingest_pipeline.chunking import model_input
from ingest_pipeline.chunking.content_defined import Chunker
from ingest_pipeline.chunking.model_input import ModelInput
from ingest_pipeline.chunking.tokenizer import BYTES, IN_BYTES, WORDLLAMA, Tokenizer
from ingest_pipeline.config.corpus_config import CorpusConfig
from ingest_pipeline.embedding.input_limits import known_tokenizer, max_input_tokens
from ingest_pipeline.errors import ConfigurationError
from ingest_pipeline.types import Chunk, ChunkUnit, TextPiece
from tests.unit.chunking.test_tokenizer import count, wordllama

ATOMS = st.sampled_from(
    [
        *("word ", "Sentence. ", "\n", "\n\n", "# Head\n", "\n\n## Another heading of some words\n\n", "| a | b |\n"),
        *("日本語の文字。", "한국어 ", "\ufdfa", "👩‍👩‍👧", "e\u0301" * 9, "x" * 70, " " * 40, "0x7f3a9c", "\ufb01"),
    ]
)
TEXTS = st.lists(ATOMS | st.text(max_size=20), max_size=150).map("".join)
LONG_TEXTS = st.lists(ATOMS | st.text(min_size=4, max_size=20), min_size=40, max_size=150).map("".join)
proved = settings(max_examples=100, derandomize=True, deadline=None)


def cut(text: str, given: ModelInput, size: int = 200, overlap: int = 0, unit: ChunkUnit = "characters") -> list[Chunk]:
    return list(Chunker(size, overlap, unit=unit, model_input=given).chunks([TextPiece(text)], markdown=True))


INPUTS = st.builds(
    ModelInput,
    st.sampled_from([Tokenizer(BYTES), Tokenizer(WORDLLAMA)]),
    st.sampled_from([90, 151, 400]),  # each number of tokens needs a splitter, which reads the vocabulary
    st.sampled_from(["", "passage: ", "título: "]),
    st.booleans(),
)


@pytest.mark.promise("model-limits")
@proved
@given(LONG_TEXTS, INPUTS, st.sampled_from([0, 20]), st.sampled_from(["characters", "tokens"]))
@example("日本語の文字。" * 60, ModelInput(Tokenizer(BYTES), 90), 0, "characters")  # three bytes a character
@example("日本語の文字。" * 60, ModelInput(Tokenizer(WORDLLAMA), 90), 0, "characters")
def test_no_text_that_is_sent_exceeds_the_limit(text: str, given: ModelInput, overlap: int, unit: ChunkUnit) -> None:
    chunks = cut(text, given, overlap=overlap, unit=unit)
    for chunk in chunks:
        sent = given.prefix + chunk.embedded_text
        exact = given.tokenizer.is_exact
        assert given.max_tokens is not None
        assert (len(wordllama().encode(sent).ids) if exact else len(sent.encode())) <= given.max_tokens
        assert chunk.text == text[chunk.start : chunk.end]
        assert not chunk.text.isspace()
    assert [chunk.ordinal for chunk in chunks] == list(range(len(chunks)))
    assert all(before.start < after.start and before.end < after.end for before, after in pairwise(chunks))
    covered = {at for chunk in chunks for at in range(chunk.start, chunk.end)}
    assert not "".join(character for at, character in enumerate(text) if at not in covered).strip()


@proved
@given(TEXTS, st.sampled_from([BYTES, WORDLLAMA]), st.sampled_from([50, 77, 120]))
def test_a_chunk_has_at_most_so_many_tokens(text: str, name: str, size: int) -> None:
    for chunk in cut(text, ModelInput(Tokenizer(name)), size, unit="tokens"):
        assert len(chunk.text.encode()) <= size or Tokenizer(name).fits(chunk.text, size)


def test_a_limit_that_no_chunk_reaches_moves_no_cut() -> None:
    for text in list(topics.values())[:20]:
        assert cut(text, ModelInput(IN_BYTES, 8191), 1000) == cut(text, ModelInput(), 1000)


def test_without_a_tokenizer_chunks_fill_what_the_model_surely_takes() -> None:
    text = "\n\n".join(f"Paragraph {number} says something of its own." for number in range(400))
    chunks = cut(text, ModelInput(IN_BYTES, 512, "passage: "), 1000)
    assert 440 < max(chunk.end - chunk.start for chunk in chunks) <= 512 - 9
    headed = cut(f"# Heading\n\n{text}", ModelInput(IN_BYTES, 512, "passage: ", heading_context=True), 1000)
    assert sum(chunk.end - chunk.start for chunk in headed) / len(headed) > 200


def test_a_document_of_divided_chunks_may_have_many() -> None:
    """How many chunks a document may have is foreseen from this, before the first is embedded."""
    given = ModelInput(Tokenizer(WORDLLAMA), 512, "passage: ")
    assert Chunker(16_384, 0, model_input=given).step < 512
    assert Chunker(1000, 900, model_input=given).step == Chunker(1000, 900).step == 100


def test_a_divided_chunk_keeps_its_pages_and_headings() -> None:
    pieces = [TextPiece("日" * 100, 1, ("One",)), TextPiece("本" * 100, 2, ("Two",))]
    chunks = list(Chunker(200, 0, model_input=ModelInput(IN_BYTES, 250)).chunks(pieces, markdown=False))
    assert {chunk.text[0]: (chunk.page, chunk.headings) for chunk in chunks} == {
        "日": (1, ("One",)),
        "本": (2, ("Two",)),
    }
    assert all(chunk.page == chunk.last_page for chunk in chunks)


def test_a_header_leaves_most_of_the_room_to_the_text() -> None:
    (chunk, *_) = cut("# " + "é" * 110 + "\n\nSome text below.", ModelInput(IN_BYTES, 216, heading_context=True))
    assert chunk.header is not None
    assert 25 < len(chunk.header.encode()) <= 50
    assert ModelInput(IN_BYTES, None, heading_context=True).header("é" * 1100) == "é" * 1000


def test_a_header_is_measured_once_for_all_chunks_below_it() -> None:
    measured = model_input._header  # pyright: ignore[reportPrivateUsage]
    before = measured.cache_info().misses
    chunks = cut("# One heading\n\n" + "Some words. " * 400, ModelInput(IN_BYTES, 256, heading_context=True))
    assert {chunk.header for chunk in chunks[1:]} == {"One heading"}
    assert len(chunks) > 20
    assert measured.cache_info().misses <= before + 2


def prose(chance: random.Random) -> str:
    """A paragraph of one to six sentences, of random letters. One in ten is a heading."""

    def sentence() -> str:
        words = ("".join(chance.choices("etaoinshrdlu", k=chance.randint(1, 11))) for _ in range(chance.randint(4, 24)))
        return " ".join(words).capitalize()

    if chance.random() < 0.1:
        return f"## {sentence()}"
    return " ".join(f"{sentence()}." for _ in range(chance.randint(1, 6)))


@pytest.mark.promise("model-limits")
@pytest.mark.parametrize("unit", ["characters", "tokens"])
def test_edits_stay_local_although_chunks_are_divided(unit: ChunkUnit) -> None:
    # Not the documentation of Python, whose text differs from one patch release to the next.
    chance, changed = random.Random(5), list[int]()
    given = ModelInput(Tokenizer(WORDLLAMA), 120, "passage: ", heading_context=True)
    paragraphs = [prose(chance) for _ in range(100)]

    def texts(parts: list[str]) -> set[str]:
        chunks = cut("\n\n".join(parts), given, 400 if unit == "characters" else 100, unit=unit)
        return {chunk.embedded_text for chunk in chunks}

    before = texts(paragraphs)
    for _ in range(24):
        # A changed heading is another matter: it is in the header of its whole section.
        at = chance.choice([number for number, part in enumerate(paragraphs) if not part.startswith("#")])
        after = [*paragraphs[:at], f"{paragraphs[at]} Changed.", *paragraphs[at + 1 :]]
        changed.append(len(texts(after) - before))
    changed.sort()
    assert changed[len(changed) // 2] <= 2
    assert changed[-2] <= 5


@pytest.mark.parametrize(
    ("model", "tokens"),
    [
        ("text-embedding-3-large", 8191),
        ("intfloat/e5-small-v2", 512),
        ("intfloat/e5-mistral-7b-instruct", 4096),
        ("BAAI/bge-base-en-v1.5", 512),
        ("BAAI/bge-m3", 8192),
        ("jinaai/jina-embeddings-v3", 8192),
        ("Qwen/Qwen3-Embedding-8B", 8192),
        ("nomic-embed-text:latest", 8192),
        ("nomic-ai/nomic-embed-text-v2-moe", 512),
        ("mxbai-embed-large", 512),
        ("Snowflake/snowflake-arctic-embed-l-v2.0", 8192),
        ("snowflake-arctic-embed:33m", 512),
        ("google/embeddinggemma-300m", 2048),
        ("Alibaba-NLP/gte-large-en-v1.5", 8192),
        ("thenlper/gte-base", 512),
        ("embed-multilingual-v3.0", 512),
        ("voyage-3.5", 32_000),
        ("company/our-model", None),
    ],
)
def test_a_known_model_has_its_limit(model: str, tokens: int | None) -> None:
    assert max_input_tokens(model) == tokens


def config(**options: Any) -> CorpusConfig:
    return CorpusConfig(corpus="c", source="s", embedding_dimensions=8, **options)


def test_the_settings_make_the_input_and_the_recipe() -> None:
    e5 = config(embedding_model="e5-small-v2")
    assert e5.model_input == ModelInput(IN_BYTES, 512, "passage: ")
    assert (e5.recipe.tokenizer, e5.recipe.max_tokens, e5.recipe.chunk_unit) == (BYTES, 512, "characters")
    openai = config(embedding_model="text-embedding-3-small", chunk_unit="tokens", chunk_size=400)
    assert (openai.recipe.tokenizer, openai.recipe.max_tokens) == ("cl100k_base", 8191)
    assert openai.create_chunker().unit == "tokens"
    unknown = config(embedding_model="ours")
    assert (unknown.recipe.tokenizer, unknown.recipe.max_tokens) == ("", None)
    local = config()
    fingerprints = {
        one.recipe.fingerprint
        for one in (local, config(chunk_unit="tokens"), config(tokenizer=BYTES), config(embedding_max_tokens=300))
    }
    assert len(fingerprints) == 4


def test_another_model_of_the_corpus_keeps_neither_tokenizer_nor_limit(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(wordllama().to_str())
    ours = config(embedding_model="ours", tokenizer=str(path), embedding_max_tokens=300)
    assert ours.with_embedding("e5-small-v2/384?prefix=passage%3A%20").model_input == ModelInput(
        IN_BYTES, 512, "passage: "
    )
    assert ours.with_embedding("ours/8").model_input == ours.model_input
    tokens = ours.replace(chunk_unit="tokens").with_embedding("e5-small-v2/384")
    assert (tokens.chunk_unit, tokens.model_input.tokenizer.name) == ("tokens", BYTES)
    assert known_tokenizer("e5-small-v2") is None
    assert count(wordllama(), "some words") < 10


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"chunk_unit": "tokens", "embedding_model": "e5-small-v2"}, "the tokenizer of 'e5-small-v2' is not known"),
        ({"tokenizer": "/nowhere/tokenizer.json"}, "cannot be read"),
        ({"embedding_max_tokens": 60}, "takes 60 tokens, and what is sent with each text leaves 44 of them"),
        ({"chunk_unit": "tokens", "chunk_size": 5000}, "between 50 and 4096 tokens"),
        ({"chunk_unit": "words"}, "chunk_unit"),
        (
            {"chunk_unit": "tokens", "chunker": "tests.support.own.Chunks"},
            "a chunker of your own, which gets characters",
        ),
    ],
)
def test_settings_that_do_not_fit_are_refused(options: dict[str, object], problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        config(**options)


def test_the_environment_has_the_options() -> None:
    found = CorpusConfig.from_environment(
        {"INGEST_CHUNK_UNIT": "tokens", "INGEST_CHUNK_SIZE": "300", "INGEST_EMBEDDING_MAX_TOKENS": "400"}
    )
    assert (found.chunk_unit, found.embedding_max_tokens, found.create_chunker().size) == ("tokens", 400, 300)
