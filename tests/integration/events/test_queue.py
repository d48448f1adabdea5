"""A queue of SQS: what is received, hidden, deleted and refused, against a real server."""

from __future__ import annotations

import pytest

from ingest_pipeline.errors import EventQueueAccessError, EventQueueUnavailableError
from ingest_pipeline.events.notices import keys_in, read_notices
from ingest_pipeline.events.queue import EventQueue, QueueDepth
from tests.support.servers.notices import NoticeQueue
from tests.support.servers.ports import free_port
from tests.support.servers.s3 import S3Server

pytestmark = pytest.mark.promise("events")


@pytest.mark.parametrize("form", ["name", "url"])
def test_notices_of_s3_arrive_and_are_hidden_until_they_are_deleted(s3: S3Server, form: str) -> None:
    there = NoticeQueue(s3)
    queue = EventQueue(there.address if form == "name" else there.url)
    there.bodies()  # the test event
    keys = [f"docs/{number}+ü %.txt" for number in range(23)]
    for key in keys:
        s3.put(key, b"text")
    assert queue.depth() == QueueDepth(23, 0)
    messages = queue.receive(1)
    notices = [notice for message in messages for notice in read_notices(message.body)]
    assert sorted(keys_in(s3.url("docs"), notices, with_sidecars=False)) == sorted(
        k.removeprefix("docs/") for k in keys
    )
    assert queue.receive(0) == []
    queue.extend(messages)
    assert queue.depth() == QueueDepth(0, 23)
    queue.delete(messages[:20])
    there.show_hidden(message.receipt for message in messages[20:])
    assert {message.body for message in queue.receive(0)} == {message.body for message in messages[20:]}
    queue.delete(messages)  # some of them a second time
    assert queue.depth() == QueueDepth(0, 0)


def test_rights_are_checked_without_a_change(s3: S3Server) -> None:
    there = NoticeQueue(s3)
    EventQueue(there.address).check_rights()
    assert there.counts() == (1, 0)


def test_a_queue_that_is_missing_or_refuses_is_named(s3: S3Server) -> None:
    with pytest.raises(EventQueueAccessError, match="The queue sqs://nothing cannot be examined"):
        EventQueue("sqs://nothing").depth()
    queue = EventQueue(NoticeQueue(s3).address)
    queue.depth()
    with s3.failing("POST", "403"), pytest.raises(EventQueueAccessError, match=r"cannot be read: .*AccessDenied"):
        queue.receive(0)
    with s3.failing("POST", "503"), pytest.raises(EventQueueUnavailableError, match=r"cannot be read: .*SlowDown"):
        queue.receive(0)


def test_a_server_that_is_down_is_temporary() -> None:
    queue = EventQueue(f"http://127.0.0.1:{free_port()}/123456789012/a")
    with pytest.raises(EventQueueUnavailableError, match="cannot be read"):
        queue.receive(0)


def test_missing_credentials_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    with pytest.raises(EventQueueAccessError, match="credentials"):
        EventQueue("sqs://123456789012/a").depth()
