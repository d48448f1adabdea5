"""A queue of Amazon SQS. The only module that imports boto3, and only when a queue is used."""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from ingest_pipeline.errors import EventQueueAccessError, EventQueueUnavailableError, IngestError, MissingExtraError
from ingest_pipeline.events.queue_address import QueueAddress
from ingest_pipeline.failpoints import Boundary, boundary

VISIBILITY_SECONDS = 60
"""Seconds for which a received message is hidden from other receivers. If its receiver dies, it appears again."""
MAX_MESSAGES = 1000
"""Messages that one call returns, at most."""
_MAX_BATCH = 10  # the limit of SQS
_MAX_COLLECTING_SECONDS = 1.0
_BUSY = {"RequestThrottled", "Throttling", "ThrottlingException", "OverLimit", "RequestLimitExceeded"}
_CLIENT_ERROR, _SERVER_ERROR = 400, 500
_NO_RECEIPT = "ingest-pipeline doctor"


@dataclass(frozen=True, slots=True)
class Message:
    """A message that was received and is hidden from other receivers for a while."""

    receipt: str
    body: str


@dataclass(frozen=True, slots=True)
class QueueDepth:
    """How many messages a queue has, as SQS estimates it."""

    waiting: int
    """Messages that nothing has received yet, or that appeared again."""
    in_flight: int
    """Messages that were received and are hidden."""

    def __str__(self) -> str:
        return f"{self.waiting:,} waiting, {self.in_flight:,} in progress"


class EventQueue:
    """A queue with the notices of a source.

    Args:
        address: The setting `events`.

    Raises:
        ConfigurationError: The address is malformed, or the extra `sqs` is not installed.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self._parsed = QueueAddress.parse(address)
        _require_boto3()
        with self._translated("be used"):
            self._client = _client(self._parsed)
        self._url = self._parsed.url

    def receive(self, wait_seconds: int) -> list[Message]:
        """Wait for messages, and return those that there are by then.

        Args:
            wait_seconds: Seconds to wait for the first message, 20 at most.

        Raises:
            EventQueueUnavailableError: SQS does not answer.
            EventQueueAccessError: There is no such queue, or SQS refuses.
        """
        found = self._receive(wait_seconds)
        ends = time.monotonic() + _MAX_COLLECTING_SECONDS
        while found and len(found) < MAX_MESSAGES and time.monotonic() < ends:
            more = self._receive(0)
            if not more:
                break
            found += more
        return found

    def _receive(self, wait_seconds: int) -> list[Message]:
        with self._translated("be read"), boundary(Boundary.NOTICES_RECEIVED):
            answer = self._client.receive_message(
                QueueUrl=self._queue_url(),
                MaxNumberOfMessages=_MAX_BATCH,
                WaitTimeSeconds=wait_seconds,
                VisibilityTimeout=VISIBILITY_SECONDS,
            )
        return [Message(one["ReceiptHandle"], one["Body"]) for one in answer.get("Messages", [])]

    def delete(self, messages: Sequence[Message]) -> None:
        """Delete messages. A message that SQS fails to delete appears again, which does no harm.

        Raises:
            EventQueueUnavailableError, EventQueueAccessError: As `receive`.
        """
        for entries in _batches(messages):
            with self._translated("delete messages"), boundary(Boundary.NOTICES_DELETED):
                self._client.delete_message_batch(QueueUrl=self._queue_url(), Entries=entries)

    def extend(self, messages: Sequence[Message]) -> None:
        """Hide messages for `VISIBILITY_SECONDS` from now.

        Raises:
            EventQueueUnavailableError, EventQueueAccessError: As `receive`.
        """
        for entries in _batches(messages):
            extended = [{**entry, "VisibilityTimeout": VISIBILITY_SECONDS} for entry in entries]
            with self._translated("hide messages"), boundary(Boundary.NOTICES_EXTENDED):
                self._client.change_message_visibility_batch(QueueUrl=self._queue_url(), Entries=extended)

    def depth(self) -> QueueDepth:
        """How many messages the queue has.

        Raises:
            EventQueueUnavailableError, EventQueueAccessError: As `receive`.
        """
        waiting, in_flight = "ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"
        with self._translated("be examined"):
            answer = self._client.get_queue_attributes(QueueUrl=self._queue_url(), AttributeNames=[waiting, in_flight])
        found = answer.get("Attributes", {})
        return QueueDepth(int(found.get(waiting, 0)), int(found.get(in_flight, 0)))

    def check_rights(self) -> None:
        """Try each kind of request, without a change: with a receipt that no message has, or no time to hide.

        Raises:
            EventQueueUnavailableError, EventQueueAccessError: As `receive`.
        """
        with self._translated("be read"), boundary(Boundary.NOTICES_RECEIVED):
            self._client.receive_message(QueueUrl=self._queue_url(), VisibilityTimeout=0, WaitTimeSeconds=0)
        for call, more in (("delete_message", {}), ("change_message_visibility", {"VisibilityTimeout": 0})):
            with self._translated(f"be used fully, because {call} is refused"), _invalid_receipt():
                getattr(self._client, call)(QueueUrl=self._queue_url(), ReceiptHandle=_NO_RECEIPT, **more)

    def _queue_url(self) -> str:
        if self._url is None:
            account = {"QueueOwnerAWSAccountId": self._parsed.account} if self._parsed.account else {}
            self._url = str(self._client.get_queue_url(QueueName=self._parsed.name, **account)["QueueUrl"])
        return self._url

    @contextmanager
    def _translated(self, what: str) -> Generator[None]:
        from botocore.exceptions import (  # noqa: PLC0415
            BotoCoreError,
            ClientError,
            NoCredentialsError,
            PartialCredentialsError,
        )

        try:
            yield
        except ClientError as error:
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", _SERVER_ERROR)
            code = error.response.get("Error", {}).get("Code", "")
            kind: type[IngestError] = EventQueueUnavailableError
            if _CLIENT_ERROR <= status < _SERVER_ERROR and code not in _BUSY:
                kind = EventQueueAccessError
            raise kind(f"The queue {self.address} cannot {what}: {_reason(error)}") from error
        except (NoCredentialsError, PartialCredentialsError) as error:
            raise EventQueueAccessError(f"The queue {self.address} cannot {what}: {_reason(error)}") from error
        except (BotoCoreError, OSError) as error:
            raise EventQueueUnavailableError(f"The queue {self.address} cannot {what}: {_reason(error)}") from error


def _require_boto3() -> None:
    # Before `_translated`, which imports the errors of botocore.
    if find_spec("boto3") is None:
        raise MissingExtraError(
            "The setting INGEST_EVENTS needs boto3, which is not installed", "Run `pip install 'ingest-pipeline[sqs]'`."
        )


def _client(address: QueueAddress) -> Any:  # noqa: ANN401  the class is made when the program runs
    import boto3  # noqa: PLC0415  an optional dependency
    from botocore.config import Config  # noqa: PLC0415

    session = boto3.Session()
    # The source is read with AWS_REGION, which boto3 does not know.
    region = address.region or os.environ.get("AWS_REGION") or session.region_name or "us-east-1"
    # A long poll is silent for up to 20 seconds.
    config = Config(connect_timeout=5, read_timeout=30, retries={"mode": "standard", "max_attempts": 3})
    return session.client("sqs", region_name=region, endpoint_url=address.endpoint, config=config)


@contextmanager
def _invalid_receipt() -> Generator[None]:
    """Expect that SQS permits the request and finds no message."""
    from botocore.exceptions import ClientError  # noqa: PLC0415

    try:
        yield
    except ClientError as error:
        if "ReceiptHandleIsInvalid" not in error.response.get("Error", {}).get("Code", ""):
            raise


def _batches(messages: Sequence[Message]) -> Iterator[list[dict[str, Any]]]:
    for start in range(0, len(messages), _MAX_BATCH):
        batch = messages[start : start + _MAX_BATCH]
        yield [{"Id": str(number), "ReceiptHandle": message.receipt} for number, message in enumerate(batch)]


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:400]
