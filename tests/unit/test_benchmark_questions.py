"""The questions of the retrieval benchmark: the same every time, with answers that they do not quote."""

from __future__ import annotations

import pytest

from benchmarks.data import questions
from benchmarks.data.questions import Collection, collections
from benchmarks.search.retrieval import Piece, is_right


def made(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> list[Collection]:
    """Only what needs no package of Debian's."""
    monkeypatch.setattr(questions, "DOCS", tmp_path)
    return list(collections(quick=True))


def test_collections_without_their_package_are_omitted_and_the_others_are_repeatable(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    first, again = made(monkeypatch, tmp_path), made(monkeypatch, tmp_path)
    assert [one.name for one in first] == ["tables and e-mail", "the same, tables as Markdown"]
    assert first == again
    assert all(len(one.questions) > 100 for one in first)


def test_an_answer_is_the_row_or_the_letter_that_names_the_firm(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    for collection in made(monkeypatch, tmp_path):
        for question in collection.questions:
            ((document, start, end),) = question.answers
            answer = collection.documents[document][start:end]
            assert any(word in question.text for word in answer.replace("|", " ").split() if len(word) > 5)
            assert question.text not in answer


def test_a_chunk_is_right_if_half_of_it_or_of_the_answer_is_shared() -> None:
    collection = Collection("one")
    document = collection.add("x" * 1000, markdown=False)
    collection.ask("Which of these is it?", (document, 100, 200))
    (question,) = collection.questions
    shared = {span: is_right(Piece(0, *span, ""), question) for span in ((0, 150), (0, 149), (150, 400), (160, 180))}
    assert shared == {(0, 150): True, (0, 149): False, (150, 400): True, (160, 180): True}
    assert not is_right(Piece(1, 100, 200, ""), question)


def test_a_question_that_quotes_its_answer_is_not_asked() -> None:
    collection = Collection("one")
    document = collection.add("The gearbox of the hoist sheared on Monday.", markdown=False)
    collection.ask("Is it that the gearbox of the hoist sheared?", (document, 0, 43))
    collection.ask("Which part of the crane broke?", (document, 0, 43))
    assert [one.text for one in collection.questions] == ["Which part of the crane broke?"]
