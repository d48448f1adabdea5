"""The state folder of another project below the source is excluded, wherever it is and whatever its name."""

from __future__ import annotations

from pathlib import Path

import pytest

from ingest_pipeline.sources.object_store import ObjectSource
from tests.support.local_folder import excluded, keys, write

pytestmark = pytest.mark.promise("secrets")


def state_folder(state: Path) -> None:
    """What an embedded Postgres, LanceDB and Dagster leave, in short."""
    for name in ("users.lock", "start.lock", "server.lock", "port", "password", "server.log", "data/PG_VERSION"):
        write(state, f"postgres/{name}", b"x")
    for name in ("data/1.lance", "_versions/1.manifest", "_transactions/0.txn"):
        write(state, f"lancedb/docs.lance/{name}", b"x")
    for name in ("dagster.yaml", "storage/run/compute_logs/x.err", ".telemetry/id.yaml", "logs/event.log"):
        write(state, f"dagster/{name}", b"x")


@pytest.mark.parametrize("state", ["", "other/.ingest_pipeline/", "a/b/c/x y/"])
def test_the_state_folder_of_another_project_has_no_documents(tmp_path: Path, state: str) -> None:
    write(tmp_path, "doc.md", b"x")
    write(tmp_path, f"{state}documents/doc.md", b"x")
    state_folder(tmp_path / state)
    assert sorted(keys(tmp_path)) == sorted(["doc.md", f"{state}documents/doc.md"])
    assert excluded(tmp_path) == {
        f"{state}dagster/": "home of Dagster",
        f"{state}lancedb/docs.lance/": "LanceDB table",
        f"{state}postgres/": "folder of an embedded Postgres",
    }


def test_a_secret_of_a_state_folder_is_not_found_by_its_name_either(tmp_path: Path) -> None:
    state_folder(tmp_path / "other")
    (tmp_path / "alias").symlink_to("other/postgres")
    source = ObjectSource(str(tmp_path))
    named = ["other/postgres/password", "alias/password", "other/lancedb/docs.lance/data/1.lance"]
    assert source.stat_all(named) == []
    assert keys(tmp_path) == []
    assert list(source.list(after="other/postgres/a", folder="other/postgres")) == []
    assert ObjectSource(str(tmp_path / "other" / "postgres")).stat_all(["password"]) == []
    assert keys(tmp_path / "other" / "postgres") == []


def test_an_embedded_postgres_is_recognized_from_before_it_has_a_password(tmp_path: Path) -> None:
    state_folder(tmp_path)
    for name in ("server.lock", "port", "password", "server.log", "data/PG_VERSION"):
        (tmp_path / "postgres" / name).unlink()
    assert excluded(tmp_path)["postgres/"] == "folder of an embedded Postgres"


def test_folders_that_only_resemble_those_of_a_state_are_listed(tmp_path: Path) -> None:
    names = [
        "dagster/dagster.md",
        "lancedb/_versions/1.md",
        "postgres/data/password",
        "postgres/users.lock",
        "project/dagster.yaml",
        "project/docs/a.md",
        "project/storage/a.md",
        "table.lance/a.md",
    ]
    for name in names:
        write(tmp_path, name, b"x")
    assert keys(tmp_path) == names
    assert excluded(tmp_path) == {}
    assert [obj.key for obj in ObjectSource(str(tmp_path)).stat_all(names)] == names
