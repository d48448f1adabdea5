"""Enforces the limits on tokens for a run and a day. Postgres counts them; the guard checks before each request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from math import ceil
from threading import Lock
from uuid import UUID

from ingest_pipeline.config.spending_limits import NO_LIMITS, SpendingLimits
from ingest_pipeline.corpus.corpus import Corpus
from ingest_pipeline.errors import SpendingLimitError
from ingest_pipeline.postgres.database import Connection
from ingest_pipeline.postgres.ledger import embedding_cache
from ingest_pipeline.postgres.sql import query

# Assumed until the corpus was billed something. Python's documentation has 4.2 in OpenAI's cl100k. Tables, source code
# and most other languages have fewer.
CHARACTERS_PER_TOKEN = 4.0
# Closer to a limit than so many batches, the count in Postgres is read before each batch.
_NEAR_BATCHES = 100


@dataclass(frozen=True, slots=True)
class TokensSpent:
    """Tokens that were billed, as Postgres counts them."""

    run: int
    today: int
    day_ends: datetime


class SpendingGuard:
    """Enforces the limits of one run, which may have several sagas.

    A batch is not sent if it would exceed a limit together with all requests of this process that are in progress. Its
    tokens are estimated from what the corpus was billed before. So a limit can be exceeded by the error of that
    estimate and by the requests that other processes have in progress: twice the concurrency of each.

    Args:
        corpus: The corpus whose tokens are counted.
        limits: Limits on the tokens of a run and a day.
        run_id: The Dagster run, if there is one. It may be retried in another process.
        enrichment: The limits for tokens that enrichers report, which apply also if the embedder is free.
    """

    def __init__(
        self,
        corpus: Corpus,
        limits: SpendingLimits = NO_LIMITS,
        run_id: str | None = None,
        *,
        enrichment: SpendingLimits = NO_LIMITS,
    ) -> None:
        self._corpus = corpus
        self._limits = limits
        self._enrichment = enrichment
        self._run_id = run_id
        self._sagas: list[UUID] = []
        self._writers: Sequence[str] = ()
        self._per_token = CHARACTERS_PER_TOKEN
        self._spent: TokensSpent | None = None
        self._reserved = 0
        self._lock = Lock()

    @property
    def is_off(self) -> bool:
        """Whether tokens are not limited at all."""
        return self._limits.tokens_per_run is None and self._limits.tokens_per_day is None

    def add(self, saga: UUID) -> None:
        """Count the tokens of a saga for this run."""
        self._sagas.append(saga)

    def count_writers(self, writers: Sequence[str]) -> None:
        """Count the tokens of all sagas of these processes for this run, which they share."""
        self._writers = writers

    def refresh(self, connection: Connection) -> None:
        """Read what was billed until now."""
        with self._lock:
            self._refresh(connection)

    def _refresh(self, connection: Connection) -> None:
        if self.is_off:
            return
        if self._spent is None:
            tokens, characters = embedding_cache.token_ratio(connection, self._corpus.generation)
            self._per_token = characters / tokens if tokens and characters else CHARACTERS_PER_TOKEN
        self._spent = read_spent(connection, self._corpus.name, self._run_id, self._sagas, self._writers)

    def reserve(self, characters: int) -> None:
        """Reserve tokens for texts of so many characters. Call `release` when their answer is recorded.

        Raises:
            SpendingLimitError: A limit would be exceeded. Nothing was reserved.
        """
        if self.is_off:
            return
        if self._spent is None or self._room() < _NEAR_BATCHES * self._tokens(self._reserved + characters):
            with self._corpus.database.transaction() as connection:
                self.refresh(connection)
        with self._lock:
            self.check(self._tokens(self._reserved + characters))
            self._reserved += characters

    def release(self, connection: Connection, characters: int) -> None:
        """Release a reservation, in the transaction that records the answer."""
        with self._lock:
            self._refresh(connection)
            self._reserved = max(0, self._reserved - characters)

    def check_enrichment(self) -> None:
        """Check whether an enricher may be called. How many tokens it will report is unknown.

        Raises:
            SpendingLimitError: A limit is reached.
        """
        if self._enrichment.tokens_per_run is None and self._enrichment.tokens_per_day is None:
            return
        with self._corpus.database.transaction() as connection:
            spent = read_spent(
                connection,
                self._corpus.name,
                self._run_id,
                self._sagas,
                self._writers,
                extensions_only=self.is_off,
            )
        self._check(1, self._enrichment, spent)

    def check(self, tokens: int) -> None:
        """Check whether so many more tokens are allowed.

        Raises:
            SpendingLimitError: A limit would be exceeded.
        """
        assert self._spent is not None  # noqa: S101  the callers have refreshed
        self._check(tokens, self._limits, self._spent)

    def _check(self, tokens: int, limits: SpendingLimits, spent: TokensSpent) -> None:
        name = self._corpus.name
        kept = "Vectors that were embedded are recorded and are not embedded again."
        if limits.tokens_per_day is not None and spent.today + tokens > limits.tokens_per_day:
            raise SpendingLimitError(
                f"Corpus {name!r} was billed {spent.today} tokens today and its next requests need about {tokens}, but "
                f"INGEST_MAX_TOKENS_PER_DAY (max_tokens_per_day of a component) allows {limits.tokens_per_day}",
                f"{kept} Wait until {spent.day_ends:%Y-%m-%d %H:%M %Z} or raise the limit, then run again.",
                until=spent.day_ends,
            )
        if limits.tokens_per_run is not None and spent.run + tokens > limits.tokens_per_run:
            raise SpendingLimitError(
                f"This run was billed {spent.run} tokens for corpus {name!r} and the next need about {tokens}, but "
                f"INGEST_MAX_TOKENS_PER_RUN (max_tokens_per_run of a component) allows {limits.tokens_per_run}",
                f"{kept} Run `ingest-pipeline ingest` to continue in another run, or raise the limit.",
            )

    def _tokens(self, characters: int) -> int:
        return ceil(characters / self._per_token)

    def _room(self) -> int:
        assert self._spent is not None  # noqa: S101  the caller has refreshed
        rooms = [
            limit - spent
            for limit, spent in (
                (self._limits.tokens_per_run, self._spent.run),
                (self._limits.tokens_per_day, self._spent.today),
            )
            if limit is not None
        ]
        return min(rooms)


def read_spent(
    connection: Connection,
    corpus: str,
    run_id: str | None = None,
    sagas: list[UUID] | None = None,
    writers: Sequence[str] = (),
    *,
    extensions_only: bool = False,
) -> TokensSpent:
    """The tokens that a corpus was billed today, and a run so far. Optionally only those that enrichers reported."""
    values = {
        "corpus": corpus,
        "run_id": run_id,
        "sagas": sagas or [],
        "writers": list(writers),
        "extensions_only": extensions_only,
    }
    row = connection.execute(query("tokens_spent"), values).fetchone()
    assert row is not None  # noqa: S101  a SELECT without FROM has one row
    return TokensSpent(row["run"], row["today"], row["day_ends"])
