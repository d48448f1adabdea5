"""Tokens are counted as the models count them, and what cannot be counted is never counted too low."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from pydoc_data.topics import topics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Reference
from tokenizers import models, normalizers, pre_tokenizers, trainers

from ingest_pipeline.chunking import tokenizer as module
from ingest_pipeline.chunking.tokenizer import OPENAI, WORDLLAMA, Tokenizer, token_bound
from ingest_pipeline.errors import ConfigurationError

counted = settings(max_examples=150, derandomize=True, deadline=None)
WORDS = st.lists(
    st.sampled_from(
        ["word ", "WORDS. ", "\n\n", "été ", "e\u0301", "日本語", "한국어", "\ufdfa", "ﬁ", "👩‍👩‍👧", "İ", "  "]
    )
    | st.text(max_size=8),
    max_size=60,
).map("".join)


@cache
def wordpiece() -> Reference:
    """A WordPiece tokenizer as BERT models have, of a few words."""
    reference = Reference(models.WordPiece(unk_token="[UNK]"))  # noqa: S106
    reference.normalizer = normalizers.BertNormalizer()
    reference.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=900, special_tokens=["[UNK]", "[CLS]", "[SEP]"])
    reference.train_from_iterator(list(topics.values())[:8], trainer)
    return reference


@cache
def unigram() -> Reference:
    """A SentencePiece tokenizer with the normalization of multilingual models, of a few words."""
    reference = Reference(models.Unigram())
    reference.normalizer = normalizers.NFKC()
    reference.pre_tokenizer = pre_tokenizers.Metaspace()
    reference.train_from_iterator(list(topics.values())[:8], trainers.UnigramTrainer(vocab_size=500, unk_token="<unk>"))  # noqa: S106
    return reference


@cache
def wordllama() -> Reference:
    return Reference.from_file(module._wordllama())  # pyright: ignore[reportPrivateUsage]


def count(reference: Reference, text: str) -> int:
    return len(reference.encode(text, add_special_tokens=False).ids)


@pytest.mark.promise("model-limits")
@pytest.mark.parametrize("reference", [wordpiece, unigram, wordllama])
@counted
@given(WORDS)
def test_no_tokenizer_makes_more_tokens_than_the_bound(reference: object, text: str) -> None:
    # SentencePiece puts a mark before the text, which may be a token: it is among the reserved ones.
    assert count(reference(), text) <= token_bound(text) + 1  # type: ignore[operator]


@pytest.mark.parametrize("step", [11, pytest.param(1, marks=pytest.mark.soak)], ids=["one in eleven", "every"])
def test_every_character_is_within_the_bound(step: int) -> None:
    characters = [chr(code) for code in range(0, 0x110000, step) if not 0xD800 <= code < 0xE000]
    found = {
        len(one.ids) - token_bound(two)
        for one, two in zip(unigram().encode_batch(characters, add_special_tokens=False), characters, strict=True)
    }
    assert max(found) <= 1


@counted
@given(WORDS, st.sampled_from([40, 63, 120]))  # each number needs a splitter, which reads the vocabulary
def test_a_text_fits_if_it_has_no_more_tokens(text: str, most: int) -> None:
    fits = Tokenizer(WORDLLAMA).fits(text, most)
    # Texts that normalization makes longer are not counted if they have few bytes.
    assert fits is (count(wordllama(), text) <= most) or (not fits and token_bound(text) > most >= len(text.encode()))


def test_the_vocabularies_in_packages_are_those_of_their_models() -> None:
    text = "Tokenization is the first step, naïvely."
    assert Tokenizer(WORDLLAMA).fits(text, count(wordllama(), text))
    assert not Tokenizer(WORDLLAMA).fits(text, count(wordllama(), text) - 1)
    assert Tokenizer(OPENAI).fits("tiktoken is great!", 6)  # as OpenAI's cookbook counts them
    assert not Tokenizer(OPENAI).fits("tiktoken is great!", 5)


def write(path: Path, **changes: object) -> str:
    path.write_text(json.dumps(json.loads(wordpiece().to_str()) | changes))
    return str(path)


def test_a_file_counts_all_tokens_although_it_truncates(tmp_path: Path) -> None:
    truncation = {"max_length": 3, "strategy": "LongestFirst", "stride": 0, "direction": "Right"}
    found = Tokenizer.of(write(tmp_path / "tokenizer.json", truncation=truncation))
    text = "the class of an object is the type of it"
    assert found.fits(text, count(wordpiece(), text))
    assert not found.fits(text, count(wordpiece(), text) - 1)


def test_the_identity_of_a_file_is_its_content(tmp_path: Path) -> None:
    one, same = write(tmp_path / "one.json"), write(tmp_path / "same.json")
    other = write(tmp_path / "other.json", version="2.0")
    assert Tokenizer.of(one).name == Tokenizer.of(same).name != Tokenizer.of(other).name
    before = Tokenizer.of(one).name
    write(tmp_path / "one.json", version="2.0")
    assert Tokenizer.of(one).name != before


def test_a_vocabulary_is_read_once_for_all_sizes(tmp_path: Path) -> None:
    found = Tokenizer.of(write(tmp_path / "tokenizer.json"))
    vocabulary = module._vocabulary  # pyright: ignore[reportPrivateUsage]
    before = vocabulary.cache_info().misses
    assert [found.fits("the class of an object is the type of it", most) for most in (3, 4, 30)] == [False, False, True]
    assert vocabulary.cache_info().misses == before + 1


@pytest.mark.parametrize("content", ["", "{}", "[]", "no json", '{"model": {"type": "None"}}'])
def test_a_file_that_is_not_a_tokenizer_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(content)
    with pytest.raises(ConfigurationError, match="is not a tokenizer") as caught:
        Tokenizer.of(str(path)).fits("some words of a text", 3)
    assert "tokenizer.json" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named() -> None:
    with pytest.raises(ConfigurationError, match="'nowhere\\.json' cannot be read: No such file"):
        Tokenizer.of("nowhere.json")
