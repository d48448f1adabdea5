"""The extra `sqs` is not installed."""

from __future__ import annotations

import sys

import pytest

from ingest_pipeline.errors import MissingExtraError
from ingest_pipeline.events.queue import EventQueue


def test_a_queue_without_its_extra_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("boto3", "botocore", "botocore.config", "botocore.exceptions"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=r"pip install 'ingest-pipeline\[sqs\]'"):
        EventQueue("sqs://123456789012/handbook")
