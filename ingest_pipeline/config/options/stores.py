"""Options of a corpus: its name, its source and where it is stored."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, field_validator, model_validator

from ingest_pipeline.config.options.checks import refusals
from ingest_pipeline.errors import ConfigurationError
from ingest_pipeline.events.queue_address import QueueAddress
from ingest_pipeline.postgres.url import database_url as checked_url
from ingest_pipeline.sources.source_url import canonical_url
from ingest_pipeline.types import corpus_name

_LANCE_SCHEMES = {"file", "s3", "gs", "az", "abfss", "oss"}
_TABLE_SUFFIX = ".lance"
_PREFIX_PART = re.compile(r"[A-Za-z0-9]+(_[A-Za-z0-9]+)*")


class StoreOptions(BaseModel):
    """The options of a corpus that are about its name, its source and its stores."""

    corpus: str = Field(
        description="Name of the corpus and of its LanceDB table. All its names in Dagster begin with it.",
        examples=["handbook"],
    )
    key_prefix: str | list[str] | None = Field(
        default=None,
        description="Precedes the name of the corpus in the keys of its assets and, joined with __, in all its other "
        "names in Dagster. Corpora of one name need different prefixes.",
        examples=["people/handbooks"],
    )
    source: str = Field(
        description="The files: a path, or s3://, gs:// or az:// with bucket and prefix.",
        examples=["documents", "s3://company/handbook"],
    )
    events: str | None = Field(
        default=None,
        description="Queue of Amazon SQS with the event notifications of a source in S3. As long as it is read, "
        "changes are found at once, and the source is listed every hour. Default: the source is listed every 30 "
        "seconds.",
        examples=["https://sqs.eu-west-1.amazonaws.com/123456789012/handbook", "sqs://123456789012/handbook"],
    )
    state: str = Field(
        default=".ingest_pipeline",
        description="Folder of the files on this machine: the embedded Postgres, and Dagster's home.",
    )
    lancedb_uri: str = Field(
        default_factory=lambda data: f"{data['state']}/lancedb",
        description="Folder of the LanceDB tables: a path or an object-store url. Default: `lancedb` under `state`.",
    )
    database_url: str | None = Field(
        default=None,
        repr=False,
        description="Postgres of the catalog. Default: an embedded Postgres under `state`.",
    )

    @field_validator("corpus")
    @classmethod
    def _check_corpus(cls, value: str) -> str:
        with refusals():
            name = corpus_name(value)
            if "__" in f"{name}_":
                raise ConfigurationError(
                    f"The corpus name {name!r} has two underscores in a row, or ends in one, which names with a "
                    "key_prefix need",
                    "Correct INGEST_CORPUS.",
                )
            return name

    @field_validator("key_prefix")
    @classmethod
    def _check_key_prefix(cls, value: str | list[str] | None) -> str | None:
        parts = value.split("/") if isinstance(value, str) else value or []
        wrong = next((part for part in parts if not _PREFIX_PART.fullmatch(part)), None)
        if wrong is not None:
            with refusals():
                raise ConfigurationError(
                    f"key_prefix has the part {wrong!r}. Each part must be letters, digits and single underscores "
                    "between them",
                    "Correct INGEST_KEY_PREFIX.",
                )
        return "/".join(parts) or None

    @property
    def key_prefix_parts(self) -> tuple[str, ...]:
        """What precedes the name of the corpus in the keys of its assets."""
        return tuple(str(self.key_prefix).split("/")) if self.key_prefix else ()

    @field_validator("source")
    @classmethod
    def _check_source(cls, value: str) -> str:
        with refusals():
            if "://" in value:  # a path is checked where it is read, which may be another machine
                canonical_url(value)
        return value

    @model_validator(mode="after")
    def _check_events(self) -> Self:
        with refusals():
            if self.events:
                QueueAddress.parse(self.events)
                if not self.source.startswith("s3://"):
                    raise ConfigurationError(
                        "INGEST_EVENTS is set, and the source is not in S3", "Remove INGEST_EVENTS, or name s3://."
                    )
        return self

    @field_validator("lancedb_uri")
    @classmethod
    def _check_lancedb_uri(cls, value: str) -> str:
        with refusals():
            return check_lancedb_uri(value)

    @field_validator("database_url")
    @classmethod
    def _check_database_url(cls, value: str | None) -> str | None:
        with refusals():
            return checked_url(value) if value else None


def check_lancedb_uri(uri: str, named: str = "INGEST_LANCEDB_URI") -> str:
    """The uri without slashes at its end.

    Args:
        uri: A path or a url.
        named: How the user gave it.

    Raises:
        ConfigurationError: It cannot be a folder of tables.
    """
    if "://" not in uri:
        _check_outside_of_tables(uri, str(Path(uri).absolute()), named)
        return uri.rstrip("/") or uri
    parts = urlsplit(uri)
    shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    if parts.scheme not in _LANCE_SCHEMES or not (parts.netloc or parts.scheme == "file"):
        raise ConfigurationError(
            f"{named} is {shown!r}, which is neither a path nor a url such as s3://bucket/folder", f"Correct {named}."
        )
    _check_outside_of_tables(shown, parts.path, named)
    return uri.rstrip("/")


def _check_outside_of_tables(shown: str, path: str, named: str) -> None:
    """Refuse a folder in another table, which includes it whenever that one is copied, moved or dropped.

    The name decides, because this machine may not reach the folder.
    """
    table = next((part for part in path.split("/") if part.endswith(_TABLE_SUFFIX) and part != _TABLE_SUFFIX), None)
    if table is not None:
        raise ConfigurationError(
            f"{named} is {shown!r}. A folder with an ending as that of {table!r} is a LanceDB table, and no other "
            "table can be in it",
            f"Set {named} to the folder that contains {table!r}, or to another one outside of it.",
        )


def absolute_location(location: str) -> str:
    """A local path made absolute, so that two ways to write it are not two locations. A url is returned unchanged."""
    return location if "://" in location else str(Path(location).absolute())
