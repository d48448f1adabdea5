"""Erasures in a storm: the user who requests and allows them, and a search for what is left, by means of its own."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import boto3
import psycopg
from lance.file import LanceFileReader
from psycopg import sql

from ingest_pipeline.errors import IngestError, UnavailableError
from ingest_pipeline.postgres.database import Database
from ingest_pipeline.postgres.ledger import erasures
from ingest_pipeline.reporting.dagster_schema import DAGSTER_SCHEMA
from tests.support.crash import jobs as crash_jobs
from tests.support.crash.crash import Child
from tests.support.servers.s3 import S3Server
from tests.support.storm.contents import mark_of
from tests.support.storm.ledger import erased_keys
from tests.support.storm.stage import CORPUS, Stage
from tests.support.storm.users.commands import run_command
from tests.support.storm.users.writers import Victims, fates_of, outcome_of, start

_VERSIONS = 8


def erase_again_and_again(stage: Stage, victims: Victims, pause: float, documents: int, *, with_commands: bool) -> None:
    """Act as a user who erases documents and allows some of them again, until the storm is over."""
    random = stage.random("erasures")
    while not stage.calm.wait(random.uniform(pause / 3, pause)):
        known = stage.contents.known()
        with suppress(UnavailableError):
            erased = _erased_now(stage, known)
            if erased and (len(erased) > documents // 4 or random.random() < 0.3):
                _allow(stage, random.choice(sorted(erased)))
            elif left := sorted({*known} - erased):
                _erase(
                    stage,
                    victims,
                    random.sample(left, k=min(random.choice([1, 1, 2]), len(left))),
                    random,
                    with_commands,
                )


def _erased_now(stage: Stage, keys: Iterable[str]) -> frozenset[str]:
    with Database(stage.database_url) as database, database.transaction() as connection:
        return erased_keys(connection, keys, datetime.now(UTC)).finished


def _allow(stage: Stage, key: str) -> None:
    with Database(stage.database_url) as database, database.transaction() as connection:
        allowed = erasures.allow(connection, CORPUS, [key])
    stage.figures.count("erasures: allowed again", len(allowed))


def _erase(stage: Stage, victims: Victims, keys: list[str], random: Random, with_commands: bool) -> None:
    if with_commands and random.random() < 0.5:
        said = run_command(stage, victims, "erasure", ["erase", *keys, "--reason", "a request", "--json"], random)
        is_done = said.status == 0
        if said.status == 2 and "has anything of a document" not in said.text:
            stage.figures.violation(f"`erase` ended with 2: {said.text[-300:]}")
    else:
        child = start(partial(Child, crash_jobs.erase, stage.address, keys, **fates_of(random)))
        found = outcome_of(stage, victims, child, "erase", random)
        is_done = found is not None
        if found:
            # A writer may have written a file between the sweep and the search.
            stage.figures.count("erasures: fingerprints found at once", found)
    stage.disruptions.moment()
    if is_done:
        stage.figures.count("erasures: receipts")
        check_versions(stage, keys, random)


def check_versions(stage: Stage, keys: Collection[str], random: Random) -> None:
    """Check that no version is left that has an erased document."""
    with suppress(IngestError), stage.corpus() as corpus:
        began = datetime.now(UTC)
        versions = corpus.table.versions()
        for version in random.sample(versions, k=min(_VERSIONS, len(versions))):
            shown = set(corpus.table.rows(version, ["document"])["document"].to_pylist())
            with corpus.database.transaction() as connection:
                erased = erased_keys(connection, keys, began).finished
            if shown & erased:
                stage.figures.violation(f"version {version} is left and has {sorted(shown & erased)}, which was erased")
            stage.figures.count("erasures: versions searched")


@dataclass(frozen=True, slots=True)
class Stores:
    """Where to look for erased documents."""

    database_url: str
    table_uri: str
    s3: S3Server | None
    """The server with the table, which is the only thing under `lancedb/`. None: the table is in a local folder."""


def remains(stage: Stage, keys: Collection[str]) -> list[str]:
    """Files and tables that have a text of some documents."""
    return remains_in(Stores(stage.database_url, stage.settings.table_uri, stage.s3), keys)


def remains_in(stores: Stores, keys: Collection[str]) -> list[str]:
    """Files and tables that have a text of some documents: the table's folder, its spool, and Postgres.

    Not in Dagster's schema: an erasure by the Python API leaves it alone, and a run in progress may report later.
    The files of the table are read without the package: as they are, and decoded if they are Lance's.
    """
    marks = [mark_of(key).encode() for key in keys]
    found = [f"file {name}" for name, content in _files(stores) if any(mark in content for mark in marks)]
    with psycopg.connect(stores.database_url) as connection:
        tables = connection.execute(
            "SELECT schemaname, tablename FROM pg_tables WHERE schemaname != ALL(%s)",
            (["pg_catalog", "information_schema", DAGSTER_SCHEMA],),
        ).fetchall()
        for schema, table in tables:
            rows = connection.execute(sql.SQL("SELECT t::text FROM {} t").format(sql.Identifier(schema, table)))
            if any(mark in (row or "").encode() for (row,) in rows for mark in marks):
                found.append(f"table {schema}.{table}")
    return found


def _files(stores: Stores) -> Iterator[tuple[str, bytes]]:
    """Each file of the table's folder, as it is, and decoded if it is Lance's."""
    if stores.s3 is None:
        for path in sorted(Path(stores.table_uri).rglob("*")):
            if path.is_file():
                yield str(path), path.read_bytes()
                yield from _decoded(path)
        return
    with tempfile.TemporaryDirectory() as directory:
        for key, content in _objects(stores.s3, "lancedb/"):
            yield key, content
            copy = Path(directory) / Path(key).name
            copy.write_bytes(content)
            yield from _decoded(copy)
            copy.unlink()


def _objects(server: S3Server, prefix: str) -> Iterator[tuple[str, bytes]]:
    """The objects of the server's bucket under a prefix."""
    client: Any = boto3.Session(region_name=server.env["AWS_REGION"]).client(
        "s3",
        endpoint_url=server.env["AWS_ENDPOINT_URL"],
        aws_access_key_id=server.env["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=server.env["AWS_SECRET_ACCESS_KEY"],
    )
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=server.bucket, Prefix=prefix):
        for found in page.get("Contents", []):
            yield found["Key"], client.get_object(Bucket=server.bucket, Key=found["Key"])["Body"].read()


def _decoded(path: Path) -> Iterator[tuple[str, bytes]]:
    if path.suffix == ".lance":
        table = LanceFileReader(str(path)).read_all().to_table()
        yield f"{path}, decoded", repr(table.to_pydict()).encode()
