"""A file of the spool is read as it was written, or reported as lost, or the store is down: never anything else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest

from ingest_pipeline.errors import TableUnavailableError
from ingest_pipeline.lance import storage
from ingest_pipeline.lance.files.spool import Spool, SpoolFileLostError, spool_name
from ingest_pipeline.lance.storage import storage_options
from tests.support.servers.s3 import S3Server

pytestmark = pytest.mark.promise("spool")

NAME = spool_name(UUID(int=7), 3)
ANSWERS = [np.arange(12, dtype=np.float32).reshape(3, 4), np.full((1, 4), 0.5, np.float32)]
CHANGES: dict[str, Callable[[bytes], bytes]] = {
    "cut short": lambda content: content[:-16],
    "cut within a number": lambda content: content[:-3],
    "empty": lambda _: b"",
    "longer": lambda content: content + content[:16],
    "other vectors": lambda content: content[16:] + content[:16],
    "one bit": lambda content: bytes([content[0] ^ 1]) + content[1:],
}


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    (tmp_path / "docs.lance" / "_versions").mkdir(parents=True)
    return Spool(str(tmp_path / "docs.lance"))


def test_the_vectors_of_all_answers_come_back_in_order(spool: Spool) -> None:
    checksum = spool.write(NAME, ANSWERS)
    assert np.array_equal(spool.read(NAME, checksum, 4), np.concatenate(ANSWERS))
    path = Path(spool.uri) / NAME
    assert path.stat().st_size == 4 * 4 * 4, "nothing but the numbers"


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_file_that_is_not_the_one_that_was_written_is_lost(spool: Spool, change: Callable[[bytes], bytes]) -> None:
    checksum = spool.write(NAME, ANSWERS)
    path = Path(spool.uri) / NAME
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(SpoolFileLostError, match="do not have the recorded checksum"):
        spool.read(NAME, checksum, 4)


def test_a_missing_file_is_lost_and_a_missing_disk_is_not(spool: Spool) -> None:
    checksum = spool.write(NAME, ANSWERS)
    table = Path(spool.uri)
    elsewhere = table.rename(table.with_name("unmounted"))
    with pytest.raises(TableUnavailableError):
        spool.read(NAME, checksum, 4)
    elsewhere.rename(table)
    (table / NAME).unlink()
    with pytest.raises(SpoolFileLostError, match="missing"):
        spool.read(NAME, checksum, 4)


def test_nothing_is_written_into_the_folder_of_a_dropped_table(tmp_path: Path) -> None:
    with pytest.raises(TableUnavailableError):
        Spool(str(tmp_path / "dropped.lance")).write(NAME, ANSWERS)
    assert list(tmp_path.iterdir()) == []


def test_on_s3_a_missing_or_changed_object_is_lost_and_an_outage_is_not(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3.env.items():
        monkeypatch.setenv(name, value)
    hurry = {"client_max_retries": "0", "client_retry_timeout": "1", "read_timeout": "2s"}
    monkeypatch.setattr(storage, "_LIMITS", {**storage._LIMITS, **hurry})  # pyright: ignore[reportPrivateUsage]
    spool = Spool(s3.url("spooled.lance"), storage_options(s3.url("spooled.lance")))
    checksum = spool.write(NAME, ANSWERS)
    assert np.array_equal(spool.read(NAME, checksum, 4), np.concatenate(ANSWERS))
    for fault in ("503", "half a body"):
        with s3.failing(r"^GET \S*/_spool/", fault), pytest.raises(TableUnavailableError):
            spool.read(NAME, checksum, 4)
    s3.put(f"spooled.lance/{NAME}", np.concatenate(ANSWERS).tobytes()[:-16])
    with pytest.raises(SpoolFileLostError, match="do not have the recorded checksum"):
        spool.read(NAME, checksum, 4)
    s3.delete(f"spooled.lance/{NAME}")
    with s3.failing("^(GET|HEAD) ", "503"), pytest.raises(TableUnavailableError):
        spool.read(NAME, checksum, 4)
    with pytest.raises(SpoolFileLostError, match="missing"):
        spool.read(NAME, checksum, 4)
    with s3.failing(r"^PUT \S*/_spool/", "503"), pytest.raises(TableUnavailableError):
        spool.write(NAME, ANSWERS)
