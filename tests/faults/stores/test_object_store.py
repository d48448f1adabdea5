"""Source and table on a real S3 endpoint whose requests fail in all ways: no publication is partial.

moto runs in a process of its own behind a gate that refuses requests, breaks connections before, within or after the
answer, or says nothing at all.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from itertools import product
from pathlib import Path

import lance
import pytest
from _pytest.mark import ParameterSet
from lance.file import LanceFileSession

from ingest_pipeline.config.corpus_config import CorpusConfig
from ingest_pipeline.errors import IngestError, UnavailableError
from ingest_pipeline.lance import storage
from ingest_pipeline.lance.storage import storage_options
from ingest_pipeline.lance.table import LanceTable
from ingest_pipeline.postgres.database import Database
from ingest_pipeline.sources import bucket as source_module
from ingest_pipeline.sources.object_store import ObjectSource
from tests.support.crash.places import in_turns
from tests.support.servers.embedding_server import TEST_MODEL, EmbeddingServer
from tests.support.servers.s3 import S3Server
from tests.support.world import World, ended_saga, leave_version_above_head, mark, paragraphs
from tools import figures

OLD = {"a.txt": paragraphs("alpha", 3), "b.txt": paragraphs("beta", 2), "c.txt": paragraphs("gamma", 1)}
NEW = {"a.txt": paragraphs("omega", 2), "c.txt": OLD["c.txt"]}
"""One document replaced, one removed, one left in the data file that all three shared."""
REQUESTS = {
    "list the source": r"^GET /documents-\d+\?\S*source",
    "read a document": r"^GET /documents-\d+/\S*/source/",
    "write a data file": r"^PUT \S*/data/",
    "read a data file": r"^GET \S*/data/",
    "write a deletion file": r"^PUT \S*/_deletions/",
    "write a transaction": r"^PUT \S*\.txn",
    "write a manifest": r"^PUT \S*\.manifest-",
    "install a manifest": r"^PUT \S*\.manifest$",
    "read a manifest": r"^(GET|HEAD) \S*\.manifest",
    "find the latest version": r"^GET /documents-\d+\?\S*_versions",
    "write to the spool": r"^PUT \S*/_spool/",
}
READS = {name for name, pattern in REQUESTS.items() if pattern.startswith(("^GET", "^("))}
OF_RECOVERY = [("find the latest version", "503"), ("write a transaction", "reset"), ("write a manifest", "reply lost")]
OF_SWEEP = [
    ("read a manifest", "half a body"),
    ("list the table", "503"),
    ("remove", "reply lost"),
    ("remove", "reset"),
]
SWEEPING = {**REQUESTS, "list the table": r"^GET /documents-\d+\?\S*\.lance%2F(&|$)", "remove": "^(POST|DELETE) "}
FOR_EVER = 1_000_000
PASSING = 1


@dataclass(slots=True)
class S3World(World):
    """A world whose source and table lie on the server."""

    s3: S3Server | None = None

    def put(self, key: str, text: str) -> Path:
        assert self.s3
        self.s3.put(f"{self.prefix}/source/{key}", text.encode())
        return Path(key)

    def remove(self, key: str) -> None:
        assert self.s3
        self.s3.delete(f"{self.prefix}/source/{key}")

    @property
    def prefix(self) -> str:
        return self.settings.corpus

    def hold(self, texts: dict[str, str]) -> None:
        """Make the source hold these documents and no others."""
        for key in {obj.key for obj in ObjectSource(self.settings.source).list()} - texts.keys():
            self.remove(key)
        for key, text in texts.items():
            self.put(key, text)

    def seen(self) -> dict[str, str]:
        return stored(self.texts())


def stored(texts: dict[str, str]) -> dict[str, str]:
    """Without the spaces, of which a chunk drops those at its ends."""
    return {key: "".join(text.split()) for key, text in texts.items()}


@pytest.fixture
def world(  # noqa: PLR0917  pytest's fixtures come as arguments
    s3: S3Server,
    database: Database,
    embeddings: EmbeddingServer,
    corpus_name: str,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> S3World:
    """Has published OLD and is about to publish NEW. Its clients repeat a request once, and wait long for an answer.

    Only if the server is silent do they wait for seconds, which a slow machine may take for any answer.
    """
    patience = 4 if "silen" in request.node.name else 240
    for name, value in s3.env.items():
        monkeypatch.setenv(name, value)
    hurry = {"client_max_retries": "1", "client_retry_timeout": f"{patience}", "read_timeout": f"{patience}s"}
    monkeypatch.setattr(storage, "_LIMITS", {**storage._LIMITS, **hurry})  # pyright: ignore[reportPrivateUsage]
    backoff = {"init_backoff": timedelta(milliseconds=10), "max_backoff": timedelta(milliseconds=20)}
    retry = {"max_retries": 1, "retry_timeout": timedelta(seconds=patience), "backoff": backoff}
    monkeypatch.setattr(source_module, "_RETRY", retry)
    monkeypatch.setattr(source_module, "_CLIENT", {"read_timeout": timedelta(seconds=patience)})
    monkeypatch.setattr(source_module, "_MAX_ATTEMPTS", 2)
    settings = CorpusConfig(
        corpus=corpus_name,
        source=s3.url(f"{corpus_name}/source"),
        lancedb_uri=s3.url(f"{corpus_name}/lancedb"),
        embedding_model=TEST_MODEL,
        embedding_dimensions=embeddings.dimensions,
    )
    world = S3World(database, settings, embeddings, s3=s3)
    world.hold(OLD)
    world.ingest()
    world.hold(NEW)
    embeddings.reset_counters()
    return world


def fail_and_check(world: S3World, request: str, fault: str, times: int) -> bool:
    """Ingest while requests fail; whether the run reported success."""
    assert world.s3
    with world.s3.failing(REQUESTS[request], fault, times=times) as fired:
        error = error_of_ingest(world)
    told = error is None
    assert error is None or error.advice, error
    assert fired[0] > 0, "no such request was made"
    figures.count(f"faults of the object store: {fault}", fired[0])
    assert world.seen() == stored(NEW if told else OLD)
    check_settled(world)
    return told


def error_of_ingest(world: S3World) -> IngestError | None:
    try:
        world.ingest()
    except IngestError as error:
        return error
    return None


def check_settled(world: S3World) -> None:
    """What failed is settled, nothing is left, and the next run does the rest and buys nothing twice."""
    before = world.seen()
    world.check()
    world.recover()
    assert world.seen() == before
    world.check_nothing_left()
    world.ingest()
    assert world.seen() == stored(NEW)
    assert world.embeddings.embedded == len(world.chunks("a.txt"))
    world.check_nothing_left()


def faults_of(request: str) -> list[str]:
    return ["503", "429", "reset", "half a body" if request in READS else "reply lost"]


def with_soak(found: Sequence[tuple[object, ...]], requests: Collection[str]) -> list[ParameterSet]:
    """Faults, of which `make test` has those of some requests, and `make soak` all."""
    return [pytest.param(*one, marks=() if one[0] in requests else pytest.mark.soak) for one in found]


REPEATED = {
    "list the source",
    "write a data file",
    "read a data file",
    "write a transaction",
    "write a manifest",
    "install a manifest",
    "find the latest version",
    "write to the spool",
}
ENDING = {"read a document", "write a deletion file", "write a manifest", "read a manifest"}
"""Each request fails in `make test`: it is repeated, or it ends the run."""
ONE_OF_EACH = [(request, faults_of(request)[number % 4]) for number, request in enumerate(REQUESTS)]
ALWAYS = [
    ("list the source", "503"),
    ("read a document", "half a body"),
    ("write a data file", "429"),
    ("write to the spool", "503"),
    ("write a deletion file", "503"),
    ("write a manifest", "reset"),
    ("read a manifest", "503"),
]
UNINSTALLED = [(fault, times) for times in (PASSING, FOR_EVER) for fault in ("412", "reply lost", "503")]
ALL = [(request, fault) for request in REQUESTS for fault in faults_of(request)]
OTHERWISE = {
    # The library gives a listing up that breaks off. Nothing has begun then, and Dagster repeats the run.
    ("list the source", "half a body", PASSING): False,
    # Lance only asks for the headers of a manifest that it knows.
    ("read a manifest", "half a body", FOR_EVER): True,
    # The library does not repeat a conditional write without an answer, so the saga is rolled back.
    ("write a manifest", "silence", PASSING): False,
    # The publication is committed, and the next reader installs its manifest.
    **{("install a manifest", fault, FOR_EVER): True for fault in ("503", "429", "reset", "reply lost", "silence")},
}
"""Whether a run succeeds where others with as many faults do not, and the other way round."""


def test_each_request_fails_in_one_way_at_least() -> None:
    """Without the faults that only `make soak` has."""
    assert set(REQUESTS) == REPEATED | ENDING
    assert {request for request, _ in ALWAYS} >= ENDING


@pytest.mark.promise("s3-faults")
@pytest.mark.parametrize(("request_kind", "fault"), with_soak(ONE_OF_EACH, REPEATED))
def test_a_request_that_fails_once_is_repeated(world: S3World, request_kind: str, fault: str) -> None:
    assert fail_and_check(world, request_kind, fault, PASSING)


@pytest.mark.promise("s3-faults")
@pytest.mark.parametrize(("request_kind", "fault"), with_soak(ALWAYS, ENDING))
def test_a_request_that_always_fails_ends_the_run_and_changes_nothing(
    world: S3World, request_kind: str, fault: str
) -> None:
    assert not fail_and_check(world, request_kind, fault, FOR_EVER)


@pytest.mark.promise("s3-faults")
@pytest.mark.soak
@pytest.mark.parametrize("times", [PASSING, FOR_EVER])
@pytest.mark.parametrize(("request_kind", "fault"), [*ALL, *product(REQUESTS, ["silence"])])
def test_any_request_may_fail_in_any_way(world: S3World, request_kind: str, fault: str, times: int) -> None:
    told = fail_and_check(world, request_kind, fault, times)
    assert told is OTHERWISE.get((request_kind, fault, times), times == PASSING)


@pytest.mark.promise("s3-faults")
@pytest.mark.parametrize(("fault", "times"), in_turns(UNINSTALLED, 0))
def test_a_publication_whose_manifest_cannot_be_installed_is_acknowledged_and_installed_later(
    world: S3World, fault: str, times: int
) -> None:
    """412: another object has the name. Nothing has, or it is the manifest itself."""
    assert fail_and_check(world, "install a manifest", fault, times)
    assert world.corpus.table.latest_version() == world.head


@pytest.mark.promise("s3-faults")
def test_a_manifest_that_was_written_and_not_confirmed_is_published_once(world: S3World) -> None:
    assert fail_and_check(world, "write a manifest", "reply lost", PASSING)


@pytest.mark.promise("s3-faults")
def test_a_manifest_that_another_process_installs_meanwhile_is_not_called_damaged(
    world: S3World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one removes the private name between this one's look at it and its download."""
    ours = mark(world.corpus, world.corpus.row().head_saga)
    made = world.corpus.table.stage_restore(world.head, ours)
    other = LanceTable(world.corpus.table.uri)
    download = LanceFileSession.download_file

    with monkeypatch.context() as patch:

        def download_late(session: LanceFileSession, name: str, path: str) -> None:
            patch.undo()
            assert other.install(made.number, made.manifest, ours.saga)
            download(session, name, path)

        patch.setattr(LanceFileSession, "download_file", download_late)
        assert world.corpus.table.install(made.number, made.manifest, ours.saga)
    assert world.corpus.table.saga_of(made.number) == ours.saga


@pytest.mark.promise("foreign-writes")
def test_a_version_of_another_writer_is_never_overwritten(world: S3World) -> None:
    """It appeared between COMMIT and the installation of the manifest."""
    ours = mark(world.corpus, world.corpus.row().head_saga)
    made = world.corpus.table.stage_restore(world.head, ours)
    theirs = lance.dataset(world.corpus.table.uri, storage_options=storage_options(world.corpus.table.uri))
    theirs.delete("document = 'b.txt'")
    assert theirs.latest_version == made.number
    assert not world.corpus.table.install(made.number, made.manifest, ours.saga)
    assert world.corpus.table.mark_of(made.number) is None
    assert world.corpus.table.install(made.number, made.manifest, ours.saga, replace=True)
    assert world.corpus.table.saga_of(made.number) == ours.saga


@pytest.mark.promise("s3-faults", "waits")
def test_a_silent_store_times_out_while_the_lock_is_held(world: S3World) -> None:
    assert not fail_and_check(world, "write a transaction", "silence", FOR_EVER)


@pytest.mark.promise("s3-faults")
@pytest.mark.parametrize(("request_kind", "fault"), OF_RECOVERY)
def test_a_recovery_may_fail_and_begin_again(world: S3World, request_kind: str, fault: str) -> None:
    assert world.s3
    leave_version_above_head(world)
    with world.s3.failing(REQUESTS[request_kind], fault) as fired, suppress(UnavailableError):
        world.recover()
    assert fired[0] > 0
    assert world.seen() == stored(OLD)
    check_settled(world)


@pytest.mark.promise("s3-faults")
@pytest.mark.parametrize(("request_kind", "fault"), in_turns(OF_SWEEP, 1))
def test_a_sweep_may_fail_and_begin_again(world: S3World, request_kind: str, fault: str) -> None:
    assert world.s3
    leave_version_above_head(world)
    world.recover()
    world.corpus.table.stage(f"{ended_saga(world)}-0.lance", world.corpus.table.schema.empty_table())
    with world.s3.failing(SWEEPING[request_kind], fault) as fired, suppress(UnavailableError):
        world.sweep()
    assert fired[0] > 0
    assert world.seen() == stored(OLD)
    check_settled(world)
