"""What the environment says about the corpus of the ready code location and of the command line."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import cast, get_args
from urllib.parse import urlsplit

from ingest_pipeline.embedding.base import check_endpoint
from ingest_pipeline.embedding.local import LOCAL_DIMENSIONS, LOCAL_MODEL
from ingest_pipeline.embedding.pricing import read_prices
from ingest_pipeline.errors import ConfigurationError
from ingest_pipeline.parsing.text_decoding import fallback_encoding
from ingest_pipeline.partitioning import PartitionScheme
from ingest_pipeline.postgres.url import database_url
from ingest_pipeline.sources.filters import pattern_of
from ingest_pipeline.sources.local import FollowLinks
from ingest_pipeline.spending_limits import DEFAULT_LIMITS, SpendingLimits
from ingest_pipeline.types import DEFAULT_RETENTION, OnUnreadable, Price, Retention, corpus_name

_PREFIX = "INGEST_"
# By `failpoints`.
_READ_ELSEWHERE = {"INGEST_FAILPOINTS"}
_LANCE_SCHEMES = {"file", "s3", "s3+ddb", "gs", "az", "abfss", "oss"}
_OPENAI_MODEL = "text-embedding-3-small"
_OPENAI_DIMENSIONS = 1536


@dataclass(frozen=True, slots=True)
class Settings:
    """One corpus and where everything about it lies."""

    corpus: str
    source: str
    lancedb_uri: str
    """Folder of the LanceDB tables."""
    database_url: str | None = field(repr=False)  # may hold a password
    """None: the embedded Postgres."""
    state: Path
    """Folder for what is kept on this machine: the embedded Postgres and Dagster's home, if they are not elsewhere."""
    embedding_model: str
    embedding_dimensions: int
    chunk_size: int
    chunk_overlap: int
    partition_by: str
    """Partition scheme."""
    include: tuple[str, ...]
    """Patterns of the documents to take. None: all."""
    exclude: tuple[str, ...]
    max_bytes: int | None
    """Largest object to take. None: any."""
    min_age_seconds: int
    """The source sensor leaves files alone that were modified so little time ago."""
    retention: Retention = DEFAULT_RETENTION
    """How long versions are kept."""
    prices: tuple[Price, ...] = ()
    """Of embedding models; where none is given, no cost is shown."""
    limits: SpendingLimits = DEFAULT_LIMITS
    """On chunks of a document, and on tokens of a run and a day."""
    follow_links: FollowLinks = "inside"
    """Which links of a local folder are followed."""
    on_unreadable: OnUnreadable = "skip"
    """What a run does about files that cannot be read."""
    encoding: str | None = None
    """Of text that is neither UTF-8 nor marked."""

    @property
    def uses_local_model(self) -> bool:
        """Vectors come from the model that this package brings, not from an API."""
        return self.embedding_model == LOCAL_MODEL

    @property
    def dagster_home(self) -> Path:
        """``DAGSTER_HOME``, or a folder of our own."""
        return Path(os.environ.get("DAGSTER_HOME") or self.state / "dagster").absolute()

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """Read ``INGEST_*``.

        Raises:
            ConfigurationError: A value is malformed, or a variable of that prefix is none that is read.
        """
        noted = _Noted(environment)
        settings = cls._read(noted)
        noted.check_names()
        return settings

    @classmethod
    def _read(cls, environment: Mapping[str, str]) -> Settings:
        get = environment.get
        state = Path(get("INGEST_STATE") or ".ingest_pipeline").absolute()
        source = absolute_place(get("INGEST_SOURCE") or "documents")
        lancedb_uri = check_lancedb_uri(absolute_place(get("INGEST_LANCEDB_URI") or str(state / "lancedb")).rstrip("/"))
        endpoint = get("OPENAI_BASE_URL")
        if endpoint:
            check_endpoint(endpoint, "OPENAI_BASE_URL")
        has_api = bool(get("OPENAI_API_KEY") or endpoint)
        model = get("INGEST_EMBEDDING_MODEL") or (_OPENAI_MODEL if has_api else LOCAL_MODEL)
        return cls(
            corpus=corpus_name(get("INGEST_CORPUS") or "documents"),
            source=source,
            lancedb_uri=lancedb_uri,
            database_url=database_url(url) if (url := get("INGEST_DATABASE_URL")) else None,
            state=state,
            embedding_model=model,
            embedding_dimensions=_number(
                environment, "INGEST_EMBEDDING_DIMENSIONS", default_dimensions(model), least=1
            ),
            chunk_size=_number(environment, "INGEST_CHUNK_SIZE", 1000),
            chunk_overlap=_number(environment, "INGEST_CHUNK_OVERLAP", 0),
            partition_by=str(PartitionScheme.parse(get("INGEST_PARTITION_BY") or "file")),
            include=_patterns(environment, "INGEST_INCLUDE"),
            exclude=(
                *_patterns(environment, "INGEST_EXCLUDE"),
                *own_folders(source, lancedb_uri, state, get("DAGSTER_HOME")),
            ),
            max_bytes=_number(environment, "INGEST_MAX_BYTES", 0) or None,
            min_age_seconds=_number(environment, "INGEST_MIN_AGE_SECONDS", 5),
            retention=Retention(
                _number(environment, "INGEST_RETENTION_DAYS", DEFAULT_RETENTION.days),
                _number(environment, "INGEST_RETENTION_PUBLICATIONS", DEFAULT_RETENTION.publications),
            ),
            prices=read_prices(get("INGEST_EMBEDDING_PRICES") or ""),
            limits=SpendingLimits.of(
                _number(environment, "INGEST_MAX_CHUNKS", DEFAULT_LIMITS.chunks_per_document or 0),
                _number(environment, "INGEST_MAX_TOKENS_PER_RUN", DEFAULT_LIMITS.tokens_per_run or 0),
                _number(environment, "INGEST_MAX_TOKENS_PER_DAY", DEFAULT_LIMITS.tokens_per_day or 0),
            ),
            follow_links=_follow_links(get("INGEST_FOLLOW_LINKS") or "inside"),
            on_unreadable=_on_unreadable(get("INGEST_ON_UNREADABLE") or "skip"),
            encoding=fallback_encoding(name) if (name := get("INGEST_ENCODING")) else None,
        )


def default_dimensions(model: str) -> int:
    """Width of a model's vectors where nothing else is said."""
    return LOCAL_DIMENSIONS if model == LOCAL_MODEL else _OPENAI_DIMENSIONS


def check_lancedb_uri(uri: str) -> str:
    """The uri itself, if it may name a folder of tables.

    Raises:
        ConfigurationError: It cannot.
    """
    if "://" not in uri:
        return uri
    parts = urlsplit(uri)
    if parts.scheme in _LANCE_SCHEMES and (parts.netloc or parts.scheme == "file"):
        return uri
    shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    raise ConfigurationError(
        f"INGEST_LANCEDB_URI is {shown!r}, which is neither a path nor a url such as s3://bucket/folder",
        "Correct INGEST_LANCEDB_URI.",
    )


def own_folders(source: str, lancedb_uri: str, state: Path, dagster_home: str | None) -> tuple[str, ...]:
    """Patterns of what this package keeps below the source: it would ingest what it writes, and never come to an end.

    Args:
        source: A path or a url of the documents.
        lancedb_uri: A path or a url of the tables.
        state: Folder for what stays on this machine.
        dagster_home: ``DAGSTER_HOME``, if it is set.
    """
    if "://" in source:
        return ()
    root = Path(source).resolve()
    places = [state / "postgres", state / "dagster", state / "lancedb"]
    places += [] if "://" in lancedb_uri else [Path(lancedb_uri)]
    places += [Path(dagster_home)] if dagster_home else []
    within = {place.resolve().relative_to(root) for place in places if place.resolve().is_relative_to(root)}
    return tuple(f"{pattern_of(str(place))}/" for place in sorted(within) if place.parts)


def _follow_links(value: str) -> FollowLinks:
    for known in get_args(FollowLinks):
        if value == known:
            return cast("FollowLinks", known)
    raise ConfigurationError(
        f"INGEST_FOLLOW_LINKS is {value!r}", f"Set it to {', '.join(get_args(FollowLinks)[:-1])} or never."
    )


def absolute_place(place: str) -> str:
    """A local path as an absolute one, so that one corpus is not taken for two; a url as it is."""
    return place if "://" in place else str(Path(place).absolute())


def _patterns(environment: Mapping[str, str], name: str) -> tuple[str, ...]:
    """Patterns between colons, as in PATH."""
    return tuple(part for part in (environment.get(name) or "").split(":") if part)


def _on_unreadable(value: str) -> OnUnreadable:
    choices: dict[str, OnUnreadable] = {"skip": "skip", "fail": "fail"}
    if value not in choices:
        raise ConfigurationError(
            f"INGEST_ON_UNREADABLE is {value!r}, which is neither skip nor fail", "Correct INGEST_ON_UNREADABLE."
        )
    return choices[value]


def _number(environment: Mapping[str, str], name: str, default: int, least: int = 0) -> int:
    value = environment.get(name) or str(default)
    if not (value.isascii() and value.isdecimal()) or int(value) < least:
        raise ConfigurationError(
            f"{name} is {value!r}, which is not a whole number of {least} or more", f"Correct {name}."
        )
    return int(value)


class _Noted(Mapping[str, str]):
    """An environment that notes which variables it is asked for."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._asked: set[str] = set()

    def __getitem__(self, name: str) -> str:
        self._asked.add(name)
        return self._environment[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._environment)

    def __len__(self) -> int:
        return len(self._environment)

    def check_names(self) -> None:
        """Refuse a variable that looks like a setting and was not asked for: misspelt, it would do nothing."""
        known = {name for name in self._asked if name.startswith(_PREFIX)}
        for name in sorted(self._environment):
            if name.startswith(_PREFIX) and name not in known | _READ_ELSEWHERE:
                close = get_close_matches(name, known, n=1, cutoff=0.8)
                remedy = f"Did you mean {close[0]}?" if close else f"There are {', '.join(sorted(known))}."
                raise ConfigurationError(f"There is no setting {name}", f"{remedy} Nothing was changed.")
