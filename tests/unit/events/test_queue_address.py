"""The setting `events`."""

from __future__ import annotations

import pytest

from ingest_pipeline.config.corpus_config import CorpusConfig
from ingest_pipeline.errors import ConfigurationError
from ingest_pipeline.events.queue_address import QueueAddress

URL = "https://sqs.eu-west-1.amazonaws.com/123456789012/handbook"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("sqs://handbook", QueueAddress("handbook")),
        ("sqs://123456789012/handbook", QueueAddress("handbook", "123456789012")),
        (
            URL,
            QueueAddress("handbook", "123456789012", URL, "https://sqs.eu-west-1.amazonaws.com", "eu-west-1"),
        ),
        (
            "https://us-gov-west-1.queue.amazonaws.com/123456789012/a.fifo",
            QueueAddress(
                "a.fifo",
                "123456789012",
                "https://us-gov-west-1.queue.amazonaws.com/123456789012/a.fifo",
                "https://us-gov-west-1.queue.amazonaws.com",
                "us-gov-west-1",
            ),
        ),
        (
            "https://vpce-0a1b-2c.sqs.us-east-1.vpce.amazonaws.com/123456789012/a",
            QueueAddress(
                "a",
                "123456789012",
                "https://vpce-0a1b-2c.sqs.us-east-1.vpce.amazonaws.com/123456789012/a",
                "https://vpce-0a1b-2c.sqs.us-east-1.vpce.amazonaws.com",
                "us-east-1",
            ),
        ),
        (
            "http://localhost:4566/000000000000/a",
            QueueAddress("a", "000000000000", "http://localhost:4566/000000000000/a", "http://localhost:4566"),
        ),
    ],
)
def test_a_queue_has_a_url_and_a_short_form(text: str, address: QueueAddress) -> None:
    assert QueueAddress.parse(text) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "handbook",
        "sqs://",
        "sqs://a/b",
        "sqs://12/a",
        "sqs://a b",
        "https://host/a",
        "https://u:secret@h/123456789012/a?x",
    ],
)
def test_anything_else_is_refused_and_shows_no_secret(text: str) -> None:
    with pytest.raises(ConfigurationError, match="not the address of a queue") as refused:
        QueueAddress.parse(text)
    assert "secret" not in str(refused.value)


def test_the_configuration_is_checked() -> None:
    CorpusConfig(corpus="docs", source="s3://company/docs", events=URL)
    with pytest.raises(ConfigurationError, match="`events` is 'nothing', which is not the address of a queue"):
        CorpusConfig(corpus="docs", source="s3://company/docs", events="nothing")
    for source in ("documents", "gs://company/docs"):
        with pytest.raises(ConfigurationError, match="`events` is set, and the source is not in S3"):
            CorpusConfig(corpus="docs", source=source, events=URL)
