"""A real S3 server, Ceph's gateway, instead of moto: the tests of S3 again, and races for one object."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import lance
import obstore
import pyarrow as pa
import pytest
from obstore.exceptions import AlreadyExistsError
from obstore.store import S3Store

from ingest_pipeline.lance.storage import storage_options
from ingest_pipeline.lance.versions.store_check import check_store
from tests.acceptance.dagster.object_stores.test_s3 import (
    test_a_bucket_that_does_not_exist_is_named,
    test_hostile_names_are_published_or_reported_as_unreadable,
    test_objects_are_found_published_and_removed,
    variables,
)
from tests.support.servers.radosgw import RadosGateway, missing_programs

__all__ = [
    "test_a_bucket_that_does_not_exist_is_named",
    "test_hostile_names_are_published_or_reported_as_unreadable",
    "test_objects_are_found_published_and_removed",
    "variables",
]

pytestmark = [pytest.mark.soak, pytest.mark.promise("stores")]
_WRITERS = 8
_RACES = 50
_COMMITS = 5


@pytest.fixture(scope="module")
def s3() -> Generator[RadosGateway]:
    """The server. Its folder has a short path, unlike those of pytest."""
    if missing := missing_programs():
        pytest.skip(f"there is no {missing[0]}: install Debian's radosgw, ceph-mon, ceph-osd and ceph-common")
    with tempfile.TemporaryDirectory(prefix="rgw") as folder, RadosGateway(Path(folder)) as server:
        yield server


@pytest.fixture
def credentials(s3: RadosGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3.env.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("credentials")
def test_of_many_writers_of_one_object_one_creates_it(s3: RadosGateway) -> None:
    check_store(s3.url("checked/docs.lance"))
    store = S3Store(s3.bucket, client_options={"allow_http": True})
    created: list[tuple[int, int]] = []

    def create(race: int, writer: int) -> None:
        with suppress(AlreadyExistsError):
            obstore.put(store, f"races/{race}", str(writer).encode(), mode="create")
            created.append((race, writer))

    with ThreadPoolExecutor(_WRITERS) as pool:
        for race in range(_RACES):
            for done in [pool.submit(create, race, writer) for writer in range(_WRITERS)]:
                done.result()
    assert Counter(Counter(race for race, _ in created).values()) == {1: _RACES}
    for race, writer in created:
        assert obstore.get(store, f"races/{race}").bytes() == str(writer).encode()


@pytest.mark.usefixtures("credentials")
def test_no_commit_of_concurrent_writers_is_lost(s3: RadosGateway) -> None:
    uri = s3.url("commits.lance")
    options: Any = storage_options(uri)
    lance.write_dataset(pa.table({"writer": pa.array([], pa.int64())}), uri, storage_options=options)

    def append(writer: int) -> None:
        for _ in range(_COMMITS):
            lance.write_dataset(pa.table({"writer": [writer]}), uri, mode="append", storage_options=options)

    with ThreadPoolExecutor(_WRITERS) as pool:
        for done in [pool.submit(append, writer) for writer in range(_WRITERS)]:
            done.result()
    written = Counter(lance.dataset(uri, storage_options=options).to_table()["writer"].to_pylist())
    assert written == dict.fromkeys(range(_WRITERS), _COMMITS)
