"""An object store as a source: names, pins, lost connections and refusals, against a real server."""

import os
from dataclasses import replace
from datetime import timedelta

import pytest

from ingest_pipeline.errors import DocumentChangedError, DocumentError, SourceUnavailableError
from ingest_pipeline.sources.object_store import ObjectSource
from ingest_pipeline.types import SourceObject
from tests.support.servers.s3 import S3Server
from tests.support.servers.tcp_proxy import Direction, TcpProxy

pytestmark = pytest.mark.promise("source-faults")

READABLE = (
    "a'b\"c",
    "a...b",
    "a,b",
    "ünï/日本",
    "n" * 300,
    " lead",
    "trail ",
    "a%2Fb",
    "a%b",
    "dot.",
    "...",
    "a\\b",
    "a#b?c",
    "notes#1",
    "~t",
    "{x}*<y>|z",
    "a+b&c",
    ".hidden",
)
UNREADABLE = ("../x", "x/../y", "./z", "a//b", "/absolute", "a\x01b", "tab\tx", "a\x7fb")
LARGE = 20 << 20


@pytest.fixture(autouse=True)
def environment(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    set_environment(monkeypatch, s3.env)
    # Enough by itself with an http:// endpoint.
    monkeypatch.delenv("AWS_ALLOW_HTTP")


def set_environment(monkeypatch: pytest.MonkeyPatch, env: dict[str, str]) -> None:
    for name, value in env.items():
        monkeypatch.setenv(name, value)


def one(s3: S3Server, prefix: str, body: bytes) -> tuple[ObjectSource, SourceObject]:
    s3.put(f"{prefix}/doc", body)
    source = ObjectSource(s3.url(prefix))
    (obj,) = source.list()
    return source, obj


def test_every_readable_name_is_listed_read_and_found_again(s3: S3Server) -> None:
    for name in READABLE:
        s3.put(f"readable/{name}", name.encode())
    source = ObjectSource(s3.url("readable"))
    listed = list(source.list())
    assert [obj.key for obj in listed] == sorted(READABLE)
    for obj in listed:
        assert b"".join(source.read(obj)) == obj.key.encode()
        assert source.stat(obj.key) == obj


def test_names_that_cannot_be_addressed_are_listed_and_reading_them_names_the_reason(
    s3: S3Server,
) -> None:
    for name in (*READABLE, *UNREADABLE):
        s3.put(f"mixed/{name}", name.encode())
    source = ObjectSource(s3.url("mixed/"))
    listed = list(source.list())
    assert [obj.key for obj in listed] == sorted((*READABLE, *UNREADABLE))
    assert {obj.key for obj in listed if not obj.etag} == set(UNREADABLE)
    for obj in listed:
        if obj.etag:
            assert b"".join(source.read(obj)) == obj.key.encode()
        else:
            assert source.stat(obj.key) is None
            with pytest.raises(DocumentError, match="Rename the object"):
                source.read(obj)


def test_a_name_that_cannot_be_addressed_on_a_later_page_repeats_and_loses_nothing(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest_pipeline.sources.bucket._PAGE_OBJECTS", 100)
    names = [f"{number:04}" for number in range(1010)]
    s3.fill([f"pages/{name}" for name in names])
    s3.put("pages/1005//x", b"x")
    assert [obj.key for obj in ObjectSource(s3.url("pages")).list()] == sorted([*names, "1005//x"])


def test_a_prefix_is_a_folder(s3: S3Server) -> None:
    for key in ("docs/a", "docs2/b", "docs", "docs.txt"):
        s3.put(key, b"x")
    assert [obj.key for obj in ObjectSource(s3.url("docs")).list()] == ["a"]
    assert list(ObjectSource(s3.url("no such prefix")).list()) == []


def test_a_prefix_is_not_decoded(s3: S3Server) -> None:
    s3.put("my %20 docs+é/a", b"x")
    assert [obj.key for obj in ObjectSource(s3.url("my %20 docs+é")).list()] == ["a"]


def test_folder_markers_are_excluded_and_empty_documents_are_not(s3: S3Server) -> None:
    s3.put("markers/folder/", b"")
    s3.put("markers/both/", b"")
    s3.put("markers/both", b"text")
    s3.put("markers/empty", b"")
    source = ObjectSource(s3.url("markers"))
    listed = list(source.list())
    assert [(obj.key, obj.size) for obj in listed] == [("both", 4), ("empty", 0)]
    assert b"".join(source.read(listed[1])) == b""


def test_blocks_are_of_one_megabyte_at_most(s3: S3Server) -> None:
    body = os.urandom((9 << 20) + 5)
    source, obj = one(s3, "blocks", body)
    blocks = list(source.read(obj))
    assert b"".join(blocks) == body
    assert max(map(len, blocks)) == 1 << 20


@pytest.mark.parametrize("body", [b"", b"first"])
@pytest.mark.parametrize("change", ["replaced", "removed"])
def test_an_object_that_changed_since_it_was_listed_is_not_read(s3: S3Server, body: bytes, change: str) -> None:
    source, obj = one(s3, f"{change}{len(body)}", body)
    if change == "replaced":
        s3.put(f"{change}{len(body)}/doc", b"other")
    else:
        s3.delete(f"{change}{len(body)}/doc")
    with pytest.raises(DocumentChangedError, match="'doc'"):
        list(source.read(obj))


def test_an_object_that_is_replaced_while_it_is_read_is_never_a_mixture(s3: S3Server) -> None:
    source, obj = one(s3, "mixture", b"a" * LARGE)
    blocks = source.read(obj)
    seen = [next(blocks)]
    s3.put("mixture/doc", b"b" * LARGE)
    with pytest.raises(DocumentChangedError):
        seen.extend(blocks)
    assert set(b"".join(seen)) == {ord("a")}


def test_a_read_continues_after_a_connection_breaks(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    body = os.urandom(LARGE)
    with TcpProxy("127.0.0.1", s3.port) as proxy:
        set_environment(monkeypatch, s3.env_through(proxy.port))
        source, obj = one(s3, "broken", body)
        fired = proxy.cut_when(after_bytes(3 << 20), after=True)
        assert b"".join(source.read(obj)) == body
        assert fired.is_set()


def test_an_object_replaced_while_a_connection_breaks_has_changed(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with TcpProxy("127.0.0.1", s3.port) as proxy:
        set_environment(monkeypatch, s3.env_through(proxy.port))
        source, obj = one(s3, "both", b"a" * LARGE)
        beyond = after_bytes(3 << 20)

        def replaced_meanwhile(block: bytes, direction: Direction) -> bool:
            if strikes := beyond(block, direction):
                s3.put("both/doc", b"b" * LARGE)
            return strikes

        proxy.cut_when(replaced_meanwhile)
        with pytest.raises(DocumentChangedError):
            list(source.read(obj))


def test_a_connection_that_always_breaks_is_an_error(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    quick(monkeypatch)
    with TcpProxy("127.0.0.1", s3.port) as proxy:
        set_environment(monkeypatch, s3.env_through(proxy.port))
        source, obj = one(s3, "always", b"a" * LARGE)

        def each_time(block: bytes, direction: Direction) -> bool:
            if direction == "to_client" and len(block) > 1000:
                proxy.cut()
            return False

        proxy.cut_when(each_time)
        with pytest.raises(SourceUnavailableError, match="always"):
            list(source.read(obj))


def after_bytes(limit: int) -> "Limit":
    return Limit(limit)


class Limit:
    """Matches once the client got so many bytes."""

    def __init__(self, left: int) -> None:
        self._left = left

    def __call__(self, block: bytes, direction: Direction) -> bool:
        self._left -= len(block) if direction == "to_client" else 0
        return self._left < 0


def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail after few attempts. Answers may take their time, because a slow machine needs it."""
    monkeypatch.setattr("ingest_pipeline.sources.bucket._RETRY", {"max_retries": 1})
    monkeypatch.setattr("ingest_pipeline.sources.bucket._MAX_ATTEMPTS", 2)


def refusal(url: str) -> str:
    source = ObjectSource(url)
    with pytest.raises(SourceUnavailableError):
        source.stat("x")
    with pytest.raises(SourceUnavailableError) as raised:
        list(source.list())
    message = str(raised.value)
    assert url in message
    assert "\n" not in message
    assert "Debug source" not in message
    return message


def test_an_endpoint_that_does_not_answer_is_reported_in_one_line_without_secrets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    quick(monkeypatch)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://user:secret@127.0.0.1:1")
    message = refusal("s3://documents/docs")
    assert "127.0.0.1:1" in message
    assert "secret" not in message


def test_missing_credentials_are_reported_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    quick(monkeypatch)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:1")
    refusal("s3://documents/docs")


def test_an_endpoint_that_accepts_and_is_silent_times_out(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    quick(monkeypatch)
    monkeypatch.setattr("ingest_pipeline.sources.bucket._CLIENT", {"read_timeout": timedelta(seconds=1)})
    with TcpProxy("127.0.0.1", s3.port) as proxy:
        set_environment(monkeypatch, s3.env_through(proxy.port))
        proxy.deaf()
        refusal("s3://documents/docs")


def test_a_bucket_that_does_not_exist_is_not_treated_as_empty() -> None:
    with pytest.raises(SourceUnavailableError, match=r"s3://no-such-bucket/docs.*NoSuchBucket"):
        list(ObjectSource("s3://no-such-bucket/docs").list())


def test_a_source_that_disappears_while_it_is_listed_is_an_error(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    quick(monkeypatch)
    s3.fill([f"long/{number:04}" for number in range(1100)])
    with TcpProxy("127.0.0.1", s3.port) as proxy:
        set_environment(monkeypatch, s3.env_through(proxy.port))
        listing = ObjectSource(s3.url("long")).list()
        next(listing)
        proxy.refuse()
        proxy.cut()
        with pytest.raises(SourceUnavailableError):
            list(listing)


def test_an_object_under_another_name_is_not_read(s3: S3Server) -> None:
    source, obj = one(s3, "named", b"x")
    with pytest.raises(DocumentChangedError):
        list(source.read(replace(obj, key="other")))


def test_a_listing_continues_after_a_key_and_below_a_folder(s3: S3Server) -> None:
    names = ["a", "b/1", "b/2/x", "b-", "b0", "c,d.txt", "\u00e9/1", "\U0001f600"]
    for name in names:
        s3.put(f"ranges/{name}", b"x")
    s3.put("ranges/marker/", b"")
    source = ObjectSource(s3.url("ranges"))
    keys = sorted(names)
    for key in ["", *keys, "aa", "b/", "zz"]:
        assert [obj.key for obj in source.list(after=key)] == [name for name in keys if name > key], key
    assert [obj.key for obj in source.list(folder="b")] == ["b/1", "b/2/x"]
    assert [obj.key for obj in source.list(folder="b/", after="b/1")] == ["b/2/x"]
    assert [obj.key for obj in source.list(folder="no such")] == []
    assert [obj.key for obj in source.list(folder="../x")] == keys


def test_an_empty_document_and_a_folders_marker_of_its_name_are_listed_once(s3: S3Server) -> None:
    for name in ("twice", "twice-x", "twice/", "twice/y"):
        s3.put(f"twins/{name}", b"" if name in {"twice", "twice/"} else b"x")
    assert [obj.key for obj in ObjectSource(s3.url("twins")).list()] == ["twice", "twice-x", "twice/y"]
