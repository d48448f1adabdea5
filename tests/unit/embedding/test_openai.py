"""The embedder against a real server that fails in the ways APIs and networks do."""

import asyncio
import json
import threading
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

from ingest_pipeline.embedding import _concurrency
from ingest_pipeline.embedding.base import EmbeddedBatch, OpenAISettings
from ingest_pipeline.embedding.openai import OpenAIEmbedder
from ingest_pipeline.embedding.prompts import Prompt, Prompts
from ingest_pipeline.errors import (
    ConfigurationError,
    EmbeddingAccessError,
    EmbeddingResponseError,
    EmbeddingUnavailableError,
    IngestError,
)
from tests.support.servers.embedding_server import (
    NARROWING_MODEL,
    POISON,
    TEST_MODEL,
    EmbeddingServer,
    Fault,
    vector_of,
)
from tests.support.servers.embeddings_protocol import EmbeddingRequest
from tests.support.servers.ports import free_port

pytestmark = pytest.mark.promise("embedding-faults")

KEY = "sk-secret-0123456789"
WIDTH = 32


@pytest.fixture
def server() -> Iterator[EmbeddingServer]:
    with EmbeddingServer(dimensions=WIDTH) as server:
        yield server


@pytest.fixture(autouse=True)
def _short_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    # Where the server does not say how long to wait, the client starts at half a second.
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.001)
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


def settings(server: EmbeddingServer, **changed: Any) -> OpenAISettings:
    return replace(OpenAISettings(TEST_MODEL, WIDTH, base_url=server.base_url, api_key=KEY, max_retries=3), **changed)


def embed(server: EmbeddingServer, texts: Sequence[str], **changed: Any) -> EmbeddedBatch:
    async def once() -> EmbeddedBatch:
        async with OpenAIEmbedder(settings(server, **changed)) as embedder:
            return await embedder.embed(texts)

    return asyncio.run(once())


def expected(texts: Sequence[str], width: int = WIDTH) -> np.ndarray:
    return np.stack([vector_of(text, width) for text in texts])


# Prompts


def test_questions_and_documents_are_sent_with_their_own_prompts(
    server: EmbeddingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    bodies: list[dict[str, Any]] = []
    parse = EmbeddingRequest.parse

    def recorded(body: bytes) -> EmbeddingRequest:
        bodies.append(json.loads(body))
        return parse(body)

    monkeypatch.setattr(EmbeddingRequest, "parse", recorded)
    prompts = Prompts(Prompt("query: ", (("input_type", "query"),)), Prompt("passage: "))

    async def both() -> list[EmbeddedBatch]:
        async with OpenAIEmbedder(settings(server, prompts=prompts)) as embedder:
            return [await embedder.embed(["one"]), await embedder.embed(["one"], purpose="query")]

    document, question = asyncio.run(both())
    assert np.array_equal(document.vectors, expected(["passage: one"]))
    assert np.array_equal(question.vectors, expected(["query: one"]))
    assert [body.get("input_type") for body in bodies] == [None, "query"]
    assert embed(server, [""], prompts=prompts).refused == {0: "is empty"}


# What a batch is


def test_vectors_come_in_the_order_of_the_texts(server: EmbeddingServer) -> None:
    batch = embed(server, ["one", "two", "three"])
    assert np.array_equal(batch.vectors, expected(["one", "two", "three"]))
    assert batch.vectors.dtype == np.float32
    assert batch.vectors.flags.c_contiguous
    assert (batch.usage.tokens, batch.usage.requests, batch.refused) == (4, 1, {})
    assert batch.usage.seconds > 0


def test_no_texts_need_no_request(server: EmbeddingServer) -> None:
    batch = embed(server, [])
    assert batch.vectors.shape == (0, WIDTH)
    assert batch.usage.requests == server.requests == 0


def test_the_same_text_twice_gets_two_rows(server: EmbeddingServer) -> None:
    assert np.array_equal(embed(server, ["same", "same"]).vectors, expected(["same", "same"]))


@pytest.mark.parametrize("fault", [Fault.SHUFFLED, Fault.FLOATS])
def test_a_legal_answer_of_another_form_is_understood(server: EmbeddingServer, fault: Fault) -> None:
    server.fail_next(fault)
    texts = [f"text {number}" for number in range(9)]
    batch = embed(server, texts)
    assert np.array_equal(batch.vectors, expected(texts))
    assert batch.usage.requests == 1


def test_base64_is_requested_and_dimensions_only_of_models_that_accept_them(server: EmbeddingServer) -> None:
    embed(server, ["x"])
    narrow = embed(server, ["x"], model=NARROWING_MODEL, dimensions=8)
    assert np.array_equal(narrow.vectors, expected(["x"], 8))
    assert server.bodies == [
        {"model": TEST_MODEL, "encoding_format": "base64"},
        {"model": NARROWING_MODEL, "encoding_format": "base64", "dimensions": 8},
    ]


# Concurrency


@pytest.mark.parametrize("concurrency", [1, 4])
def test_no_more_requests_run_at_once_than_allowed(concurrency: int) -> None:
    async def many(server: EmbeddingServer) -> list[EmbeddedBatch]:
        async with OpenAIEmbedder(settings(server, concurrency=concurrency)) as embedder:
            return await asyncio.gather(*[embedder.embed([f"text {number}"]) for number in range(12)])

    with EmbeddingServer(dimensions=WIDTH, latency=0.03) as server:
        batches = asyncio.run(many(server))
        assert server.peak <= concurrency
        assert (server.peak > 1) == (concurrency > 1)
        assert server.embedded == server.requests == 12
    assert np.array_equal(
        np.concatenate([batch.vectors for batch in batches]), expected([f"text {number}" for number in range(12)])
    )


async def embed_many(embedder: OpenAIEmbedder, count: int) -> None:
    """Batches of one text each, all wanted at once."""
    await asyncio.gather(*[embedder.embed([f"text {number}"]) for number in range(count)])


def test_the_concurrency_adapts_to_an_api_that_refuses_requests() -> None:
    async def many(server: EmbeddingServer) -> None:
        async with OpenAIEmbedder(settings(server, concurrency=16, max_retries=100)) as embedder:
            await embed_many(embedder, 200)

    with EmbeddingServer(dimensions=WIDTH, latency=0.02, max_in_flight=4) as server:
        asyncio.run(many(server))
        assert server.embedded == len(server.texts) == 200
        # A client that always sends sixteen is refused some 1300 times, this one some 40 times: that is how it finds
        # the limit. The bound between the two is far from both, because a slow machine shifts them.
        assert server.refused < 200


def test_the_concurrency_recovers_after_refusals_end(server: EmbeddingServer, monkeypatch: pytest.MonkeyPatch) -> None:
    encode, eight = server.encode, threading.Barrier(8)

    def encode_together(request: EmbeddingRequest) -> object:
        eight.wait(300)  # no request is answered before eight are in progress
        return encode(request)

    async def many() -> None:
        async with OpenAIEmbedder(settings(server, concurrency=8, max_retries=20)) as embedder:
            server.fail_next(Fault.RATE_LIMITED, 20)
            await embed_many(embedder, 200)
            server.reset_counters()
            monkeypatch.setattr(server, "encode", encode_together)
            await embed_many(embedder, 32)

    monkeypatch.setattr(_concurrency, "_QUEUEING", float("inf"))  # a slow machine looks like a queue
    asyncio.run(many())
    assert server.peak == 8


def test_a_cancelled_request_frees_its_slot(server: EmbeddingServer) -> None:
    async def cancel_then_embed() -> EmbeddedBatch:
        async with OpenAIEmbedder(settings(server, concurrency=1)) as embedder:
            server.latency = 0.5
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await embedder.embed(["abandoned"])
            server.latency = 0
            return await embedder.embed(["next"])

    assert np.array_equal(asyncio.run(cancel_then_embed()).vectors, expected(["next"]))


# What passes is retried


@pytest.mark.parametrize(
    "fault",
    [
        Fault.RATE_LIMITED,
        Fault.RATE_LIMITED_SILENTLY,
        Fault.SERVER_ERROR,
        Fault.OVERLOADED,
        Fault.RESET,
    ],
)
def test_temporary_errors_are_retried_and_every_request_counts(server: EmbeddingServer, fault: Fault) -> None:
    server.fail_next(fault, times=2)
    batch = embed(server, ["one", "two"])
    assert np.array_equal(batch.vectors, expected(["one", "two"]))
    assert batch.usage.requests == server.requests == 3
    assert server.embedded == 2


@pytest.mark.parametrize("fault", [Fault.RESET_IN_BODY, Fault.TRUNCATED_JSON, Fault.REPLY_LOST])
def test_a_request_whose_answer_is_lost_is_repeated(server: EmbeddingServer, fault: Fault) -> None:
    server.fail_next(fault)
    batch = embed(server, ["one", "two"])
    assert np.array_equal(batch.vectors, expected(["one", "two"]))
    assert batch.usage.requests == server.requests == 2
    assert server.embedded == 4


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (Fault.RATE_LIMITED, "refused 4 requests, the last with: Error code: 429 - Rate limit reached"),
        (Fault.SERVER_ERROR, "refused 4 requests, the last with: Error code: 500"),
        (Fault.OVERLOADED, "503"),
        (Fault.RESET, "broke or refused the connection of 4 requests (ReadError)"),
        (Fault.RESET_IN_BODY, "broke or refused the connection of 4 requests"),
        (Fault.REPLY_LOST, "RemoteProtocolError"),
    ],
)
def test_a_lasting_temporary_error_is_unavailable(server: EmbeddingServer, fault: Fault, says: str) -> None:
    server.fail_next(fault, times=4)
    error = failure(server, EmbeddingUnavailableError)
    assert says in str(error)
    assert server.requests == 4


def test_an_answer_that_is_never_json_is_invalid(server: EmbeddingServer) -> None:
    server.fail_next(Fault.TRUNCATED_JSON, times=4)
    assert "not JSON" in str(failure(server, EmbeddingResponseError))
    assert server.requests == 4


def test_a_retry_after_that_is_too_long_is_reported(server: EmbeddingServer) -> None:
    server.fail_next(Fault.RATE_LIMITED_FOR_LONG)
    assert "asks to wait 600 s" in str(failure(server, EmbeddingUnavailableError))
    assert server.requests == 1


def test_a_server_that_does_not_answer_in_time_is_unavailable(server: EmbeddingServer) -> None:
    server.latency = 0.4
    error = failure(server, EmbeddingUnavailableError, timeout=0.05, max_retries=1)
    assert "did not answer 2 requests within 0.05 s each" in str(error)


def test_an_answer_that_does_not_end_times_out(server: EmbeddingServer) -> None:
    server.fail_next(Fault.ENDLESS, times=2)
    error = failure(server, EmbeddingUnavailableError, timeout=0.2, max_retries=1)
    assert "did not answer 2 requests" in str(error)


def test_a_closed_port_is_unavailable(server: EmbeddingServer) -> None:
    closed = f"http://127.0.0.1:{free_port()}/v1"
    assert "(ConnectError)" in str(failure(server, EmbeddingUnavailableError, base_url=closed))


# What does not pass is reported at once


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (Fault.UNAUTHORIZED, "refused the key (401)"),
        (Fault.FORBIDDEN, "refused the key: Error code: 403"),
        (Fault.QUOTA, "The quota at 127.0.0.1"),
    ],
)
def test_a_refused_account_is_not_retried(server: EmbeddingServer, fault: Fault, says: str) -> None:
    server.fail_next(fault, times=4)
    assert says in str(failure(server, EmbeddingAccessError))
    assert server.requests == 1


def test_an_unknown_model_is_named(server: EmbeddingServer) -> None:
    assert "'no-such-model'" in str(failure(server, EmbeddingAccessError, model="no-such-model"))


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (Fault.NOT_IMPLEMENTED, "Error code: 501 - Embeddings are not implemented"),
        (Fault.OLD_PROTOCOL, "Error code: 505"),
    ],
)
def test_a_server_that_cannot_embed_at_all_is_a_wrong_setting(server: EmbeddingServer, fault: Fault, says: str) -> None:
    server.fail_next(fault, times=4)
    error = str(failure(server, ConfigurationError))
    assert says in error
    assert "OPENAI_BASE_URL" in error
    assert "again later" not in error
    assert server.requests == 1


def test_a_parameter_that_is_refused_is_not_blamed_on_a_text(server: EmbeddingServer) -> None:
    server.fail_next(Fault.BAD_PARAMETER)
    assert "Unrecognized request argument" in str(failure(server, ConfigurationError))
    assert server.requests == 1


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (Fault.WRONG_COUNT, "1 vector for 2 inputs"),
        (Fault.EMPTY_DATA, "0 vectors for 2 inputs"),
        (Fault.DUPLICATE_INDEX, "the index 0 twice"),
        (Fault.WRONG_WIDTH, "a vector of 31 dimensions instead of 32"),
        (Fault.NAN, "not finite"),
        (Fault.ZERO_VECTOR, "length zero"),
        (Fault.ERROR_AS_SUCCESS, "Provider returned error"),
    ],
)
def test_an_invalid_answer_is_refused_with_the_reason(server: EmbeddingServer, fault: Fault, says: str) -> None:
    server.fail_next(fault)
    assert says in str(failure(server, EmbeddingResponseError))
    assert server.requests == 1


def failure(server: EmbeddingServer, kind: type[IngestError], **changed: Any) -> IngestError:
    """The error, checked for what every error promises: one line, the host, no key anywhere in the traceback."""
    with pytest.raises(kind) as caught:
        embed(server, ["one", "two"], **changed)
    assert type(caught.value) is kind
    line = str(caught.value)
    assert "\n" not in line
    assert urlsplit(changed.get("base_url", server.base_url)).netloc in line
    assert KEY not in "".join(traceback.format_exception(caught.value))
    assert caught.value.__cause__ is caught.value.__context__ is None
    return caught.value


# One text at fault


def test_an_empty_text_is_refused_without_a_request(server: EmbeddingServer) -> None:
    batch = embed(server, ["one", "", "two"])
    assert batch.refused == {1: "is empty"}
    assert np.array_equal(batch.vectors[[0, 2]], expected(["one", "two"]))
    assert np.isnan(batch.vectors[1]).all()
    assert server.texts == {"one": 1, "two": 1}


def test_a_refused_text_that_the_api_names_is_separated_and_the_others_embedded_once(server: EmbeddingServer) -> None:
    texts = [*(f"text {number}" for number in range(20)), f"too {POISON} long", *(f"more {n}" for n in range(20))]
    batch = embed(server, texts)
    assert list(batch.refused) == [20]
    assert "maximum context length is 8192 tokens" in batch.refused[20]
    good = [position for position in range(41) if position != 20]
    assert np.array_equal(batch.vectors[good], expected([texts[position] for position in good]))
    assert server.texts == dict.fromkeys([texts[position] for position in good], 1)
    assert batch.usage.requests == server.requests == 3


def test_a_batch_refused_without_naming_a_text_is_divided(server: EmbeddingServer) -> None:
    server.fail_next(Fault.TOO_LONG, times=3)
    texts = [f"text {number}" for number in range(4)]
    batch = embed(server, texts)
    assert list(batch.refused) == [0]
    assert np.isnan(batch.vectors[0]).all()
    assert np.array_equal(batch.vectors[1:], expected(texts[1:]))
    assert server.texts == dict.fromkeys(texts[1:], 1)
    assert batch.usage.requests == server.requests == 5


def test_a_batch_whose_texts_are_all_refused_ends(server: EmbeddingServer) -> None:
    batch = embed(server, [POISON + str(number) for number in range(5)])
    assert sorted(batch.refused) == [0, 1, 2, 3, 4]
    assert server.embedded == batch.usage.tokens == 0
    assert batch.usage.requests == server.requests <= 10


def test_retries_before_a_refusal_are_counted(server: EmbeddingServer) -> None:
    server.fail_next(Fault.RATE_LIMITED)
    batch = embed(server, [POISON])
    assert batch.usage.requests == server.requests == 2


# Settings


def test_without_a_key_the_error_says_what_to_set() -> None:
    with pytest.raises(EmbeddingAccessError, match="OPENAI_API_KEY, or set OPENAI_BASE_URL"):
        OpenAIEmbedder(OpenAISettings(TEST_MODEL, WIDTH))


def test_a_configured_endpoint_needs_no_key(server: EmbeddingServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
    assert embed(server, ["x"], base_url=None, api_key=None).usage.requests == 1


def test_unset_options_come_from_the_environment(server: EmbeddingServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}\n")
    server.fail_next(Fault.FORBIDDEN)
    error = failure(server, EmbeddingAccessError, api_key=None)
    assert "Incorrect API key provided: ***" in str(error)


@pytest.mark.parametrize("key", ["sk-\N{HORIZONTAL ELLIPSIS}", "sk-one\nsk-two"])
def test_a_key_that_does_not_fit_a_header_is_refused_at_once(server: EmbeddingServer, key: str) -> None:
    with pytest.raises(EmbeddingAccessError) as caught:
        OpenAIEmbedder(settings(server, api_key=key))
    assert "sk-" not in str(caught.value)


def test_a_malformed_endpoint_is_refused_at_once(server: EmbeddingServer) -> None:
    with pytest.raises(ConfigurationError, match="'localhost:8080/v1' is not an HTTP address"):
        OpenAIEmbedder(settings(server, base_url="localhost:8080/v1"))


def test_settings_do_not_show_their_key(server: EmbeddingServer) -> None:
    assert KEY not in repr(settings(server))


# The server that these and other tests rely on


def test_faults_happen_in_order_and_counters_are_reset(server: EmbeddingServer) -> None:
    server.fail_next(Fault.RATE_LIMITED)
    server.fail_next(Fault.QUOTA)
    failure(server, EmbeddingAccessError)
    assert server.requests == 2
    server.reset_counters()
    embed(server, ["one", "one"])
    assert (server.requests, server.embedded, server.texts) == (1, 2, {"one": 2})
