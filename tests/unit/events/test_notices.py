"""Messages of S3, and the keys of documents in them."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from ingest_pipeline.events.notices import ObjectNotice, keys_in, read_notices
from tests.support.servers.notices import TEST_EVENT, event_bridge_message, in_sns, s3_message

pytestmark = pytest.mark.promise("events")

KEYS = [
    "docs/a.txt",
    "docs/with space.txt",
    "docs/a+b.txt",
    "docs/100%.txt",
    "docs/a%2Fb.txt",
    "docs/ünï/日本.txt",
    "docs/a=&?#",
]


def in_sns_twice(body: str) -> str:
    return in_sns(in_sns(body))


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("wrapped", [str, in_sns, in_sns_twice])
def test_the_key_is_decoded(key: str, wrapped: Callable[[str], str]) -> None:
    assert read_notices(wrapped(s3_message("company", key))) == [ObjectNotice("company", key)]
    assert read_notices(wrapped(event_bridge_message("company", key))) == [ObjectNotice("company", key)]


@pytest.mark.parametrize(
    "event",
    [
        "ObjectCreated:CompleteMultipartUpload",
        "ObjectRemoved:DeleteMarkerCreated",
        "LifecycleExpiration:Delete",
        "Any:New",
    ],
)
def test_the_kind_of_event_its_version_and_its_sequencer_do_not_matter(event: str) -> None:
    body = s3_message("company", "docs/a.txt", event, versionId="v2", sequencer="0055AED6DCD90281E5")
    assert read_notices(body) == [ObjectNotice("company", "docs/a.txt")]


def test_a_message_may_have_several_records() -> None:
    records = [json.loads(s3_message("company", key))["Records"][0] for key in ("docs/a", "docs/b", "docs/a")]
    notices = read_notices(json.dumps({"Records": records}))
    assert keys_in("s3://company/docs", notices, with_sidecars=False) == ["a", "b"]


@pytest.mark.parametrize("body", [TEST_EVENT, in_sns(TEST_EVENT), '{"Records": []}'])
def test_a_message_may_name_no_object(body: str) -> None:
    assert read_notices(body) == []


@pytest.mark.parametrize(
    "body",
    [
        "",
        "no json",
        "null",
        "[]",
        "{}",
        '{"Records": {}}',
        '{"Records": [null]}',
        '{"Records": [{"s3": {"bucket": {"name": "b"}}}]}',
        '{"Records": [{"s3": {"bucket": {"name": 1}, "object": {"key": "k"}}}]}',
        '{"Records": [{"s3": {"bucket": {"name": "b"}, "object": {"key": "%ff"}}}]}',
        '{"Type": "Notification"}',
        '{"Type": "Notification", "Message": "no json"}',
        '{"source": "aws.s3", "detail": []}',
        "[" * 100_000,
    ],
)
def test_anything_else_is_malformed(body: str) -> None:
    with pytest.raises(
        ValueError, match=r"it (is not a JSON object|names no object|has no records)|codec can't decode"
    ):
        read_notices(body)


def test_notices_of_other_places_are_ignored() -> None:
    notices = [
        ObjectNotice("company", "docs/a.txt"),
        ObjectNotice("company", "docs2/b.txt"),
        ObjectNotice("company", "docs"),
        ObjectNotice("company", "docs/"),
        ObjectNotice("other", "docs/c.txt"),
    ]
    assert keys_in("s3://company/docs/", notices, with_sidecars=False) == ["a.txt"]
    assert keys_in("s3://other", notices, with_sidecars=False) == ["docs/c.txt"]


def test_a_sidecar_stands_for_its_document() -> None:
    notices = [ObjectNotice("company", f"docs/a.txt{end}") for end in ("", ".metadata.json")]
    assert keys_in("s3://company/docs", notices, with_sidecars=True) == ["a.txt"]
    assert keys_in("s3://company/docs", notices, with_sidecars=False) == ["a.txt", "a.txt.metadata.json"]
