"""Which text is embedded, with which prompt, and where its chunk stands."""

from __future__ import annotations

import itertools
from typing import Any
from uuid import UUID

from ingest_pipeline import types
from ingest_pipeline.chunking import sections
from ingest_pipeline.chunking.model_input import ModelInput
from ingest_pipeline.embedding import base
from ingest_pipeline.embedding.prompts import NO_PROMPT
from ingest_pipeline.lance.checks import fingerprints
from ingest_pipeline.maintenance import audit_rows
from ingest_pipeline.preparation.vectors import vector_resolver as vectors
from ingest_pipeline.types import text_hash
from tests.support.mutants.mutant import Mutant, answering, plug

_PROMPTS = "tests/unit/embedding/test_openai.py::test_questions_and_documents_are_sent_with_their_own_prompts"
_SECTIONS = "tests/integration/search/test_sections.py::"


def limit_of_the_model_ignored() -> None:
    plug(ModelInput, "fits", answering(True))


def a_divided_chunk_loses_its_rest() -> None:
    chunks = sections.Sections.chunks

    def first_half(found: sections.Sections, begin: int, text: str, *values: Any) -> Any:
        return itertools.islice(chunks(found, begin, text, *values), 1)

    plug(sections.Sections, "chunks", first_half)


def questions_are_sent_as_documents() -> None:
    prompt = base.EmbeddingSettings.prompt

    def of_documents(settings: base.EmbeddingSettings, _: str) -> Any:
        return prompt(settings, "document")

    plug(base.EmbeddingSettings, "prompt", of_documents)


def prompts_are_not_sent() -> None:
    plug(base.EmbeddingSettings, "prompt", answering(NO_PROMPT))


def header_missing_in_the_hash() -> None:
    def of_text_alone(embedded: str) -> UUID:
        header, line, text = embedded.partition("\n\n")
        return text_hash(text if line else header)

    plug(vectors, "text_hash", of_text_alone)


def prompt_missing_in_the_identity() -> None:
    def without_prompt(model: str, dimensions: int, _: str = "") -> str:
        return f"{model}/{dimensions}"

    plug(types, "join_embedding", without_prompt)
    plug(base, "join_embedding", without_prompt)


def places_are_not_audited() -> None:
    hashes = fingerprints.row_hashes

    def without_places(texts: Any, *numbers: Any) -> Any:
        return hashes(texts[:3], *numbers[:3])

    plug(fingerprints, "row_hashes", without_places)
    plug(audit_rows, "row_hashes", without_places)


MUTANTS = {
    "limit of the model ignored": Mutant(
        limit_of_the_model_ignored,
        "tests/unit/chunking/test_model_input.py::test_no_text_that_is_sent_exceeds_the_limit",
    ),
    "a divided chunk loses its rest": Mutant(
        a_divided_chunk_loses_its_rest,
        "tests/unit/chunking/test_model_input.py::test_no_text_that_is_sent_exceeds_the_limit",
    ),
    "questions are sent as documents": Mutant(questions_are_sent_as_documents, _PROMPTS),
    "prompts are not sent": Mutant(prompts_are_not_sent, _PROMPTS),
    "header missing in the hash": Mutant(
        header_missing_in_the_hash,
        f"{_SECTIONS}test_a_changed_heading_embeds_its_section_again_and_nothing_else",
    ),
    "prompt missing in the identity": Mutant(
        prompt_missing_in_the_identity,
        "tests/integration/preparation/test_pay_once.py::"
        "test_vectors_of_another_model_or_width_or_prompt_are_never_used",
    ),
    "headings are not audited": Mutant(
        places_are_not_audited,
        f"{_SECTIONS}test_a_place_that_differs_between_the_stores_is_a_violation[another heading]",
    ),
    "pages are not audited": Mutant(
        places_are_not_audited,
        f"{_SECTIONS}test_a_place_that_differs_between_the_stores_is_a_violation[another page]",
    ),
}
