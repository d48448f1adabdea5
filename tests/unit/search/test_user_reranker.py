"""A reranker of the user: its scores, and that whatever else it returns is an error that names it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from ingest_pipeline import CorpusConfig
from ingest_pipeline.errors import ConfigurationError, RerankerResponseError, RerankerUnavailableError
from ingest_pipeline.extensions.loader import read_extensions
from ingest_pipeline.search.user_reranker import UserReranker, load_reranker
from ingest_pipeline.search.user_reranker_role import read_answer

MODULE = "tests.support.user_code"


def reranker(seconds: float = 30) -> UserReranker:
    found = load_reranker(
        read_extensions("reranker", {"class": f"{MODULE}.ObedientReranker", "arguments": {"seconds": seconds}})
    )
    assert found is not None
    return found


def scores(found: UserReranker, question: str, texts: Sequence[str] = ("abc", "a", "ab")) -> list[float]:
    return asyncio.run(found.rerank(question, texts))


def test_each_text_gets_its_score() -> None:
    assert scores(reranker(), "short") == [-3.0, -1.0, -2.0]
    assert scores(reranker(), "short", ()) == []


@pytest.mark.promise("user-code")
@pytest.mark.parametrize(
    ("question", "problem"),
    [
        ("raise", "ObedientReranker raised ValueError: no such thing"),
        ("die", "ObedientReranker ended its process"),
        ("hang", "ObedientReranker took more than 2 seconds"),
        ("few", "returned 2 scores for 3 texts"),
        ("nan", "returned a score that is not finite"),
        ("words", "returned 0 scores for 3 texts"),
        ("nothing", "returned scores that are a NoneType, not a list of numbers"),
    ],
)
def test_whatever_else_it_does_fails_the_search_with_its_name(question: str, problem: str) -> None:
    found = reranker(2 if question == "hang" else 30)
    with pytest.raises(RerankerResponseError, match=problem):
        scores(found, question)
    assert scores(found, "short") == [-3.0, -1.0, -2.0]


def test_a_temporary_failure_is_an_error_of_its_own() -> None:
    with pytest.raises(RerankerUnavailableError, match="failed with ConnectionRefusedError"):
        scores(reranker(), "offline")


@pytest.mark.parametrize("answer", [b"", b"[]", b'[[1], ""]', b'[[1, NaN], ""]', b'[3, ""]'])
def test_what_the_child_sends_is_checked_in_the_parent_too(answer: bytes) -> None:
    with pytest.raises((ValueError, TypeError)):
        read_answer(answer, 2)


def test_mistakes_of_the_configuration_are_refused() -> None:
    found = CorpusConfig.from_environment({"INGEST_RERANKER": f"{MODULE}.ObedientReranker"})
    assert load_reranker(found.reranker) is not None
    with pytest.raises(ConfigurationError, match="INGEST_RERANKER and INGEST_RERANK_URL are both set"):
        CorpusConfig.from_environment(
            {"INGEST_RERANKER": f"{MODULE}.ObedientReranker", "INGEST_RERANK_URL": "http://localhost/rerank"}
        )
    with pytest.raises(ConfigurationError, match="has no 'rerank', which every reranker must have"):
        load_reranker(read_extensions("reranker", f"{MODULE}.Title"))
    with pytest.raises(ConfigurationError, match="names more than one reranker"):
        load_reranker(read_extensions("reranker", [f"{MODULE}.ObedientReranker"] * 2))
