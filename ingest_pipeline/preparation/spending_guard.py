"""Keeps a run and a day from buying more tokens than the settings allow. Postgres counts; this looks before it buys."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from math import ceil
from threading import Lock
from uuid import UUID

from ingest_pipeline.corpus.corpus import Corpus
from ingest_pipeline.errors import SpendingLimitError
from ingest_pipeline.postgres import embedding_cache
from ingest_pipeline.postgres.database import Connection
from ingest_pipeline.postgres.sql import query
from ingest_pipeline.spending_limits import NO_LIMITS, SpendingLimits

# Of text whose corpus was billed nothing yet. Python's documentation has 4.2 in OpenAI's cl100k; most other languages,
# tables and source code have fewer.
CHARACTERS_PER_TOKEN = 4.0
# Far from a limit the count of the last answer will do; near it Postgres is asked before each batch.
_NEAR = 100


@dataclass(frozen=True, slots=True)
class TokensSpent:
    """What was billed, as Postgres counts it."""

    run: int
    today: int
    day_ends: datetime


class SpendingGuard:
    """The limits of one run, which may be of several sagas.

    A batch is not sent if it, with all that this process has under way, would pass a limit. What the texts will be
    billed is estimated by what the corpus was billed before. So a limit is passed by the error of that estimate, and by
    what other processes have under way at that moment: twice their concurrency in requests, each.

    Args:
        corpus: Whose tokens are counted by the day.
        limits: What may be bought.
        run_id: The Dagster run that pays for it, if there is one; it may begin anew in another process.
    """

    def __init__(self, corpus: Corpus, limits: SpendingLimits = NO_LIMITS, run_id: str | None = None) -> None:
        self._corpus = corpus
        self._limits = limits
        self._run_id = run_id
        self._sagas: list[UUID] = []
        self._per_token = CHARACTERS_PER_TOKEN
        self._spent: TokensSpent | None = None
        self._under_way = 0
        self._lock = Lock()

    @property
    def is_off(self) -> bool:
        """Whether there is no limit to look at."""
        return self._limits.tokens_per_run is None and self._limits.tokens_per_day is None

    def add(self, saga: UUID) -> None:
        """Count what the saga buys as bought by this run."""
        self._sagas.append(saga)

    def look(self, connection: Connection) -> None:
        """Find out what was billed until now."""
        with self._lock:
            self._look(connection)

    def _look(self, connection: Connection) -> None:
        if self.is_off:
            return
        if self._spent is None:
            tokens, characters = embedding_cache.token_ratio(connection, self._corpus.generation)
            self._per_token = characters / tokens if tokens and characters else CHARACTERS_PER_TOKEN
        self._spent = read_spent(connection, self._corpus.name, self._run_id, self._sagas)

    def reserve(self, characters: int) -> None:
        """Ask to buy texts of so many characters; `settle` must follow when their answer is recorded.

        Raises:
            SpendingLimitError: A limit would be passed. Nothing is to be bought.
        """
        if self.is_off:
            return
        if self._spent is None or self._room() < _NEAR * self._tokens(self._under_way + characters):
            with self._corpus.database.transaction() as connection:
                self.look(connection)
        with self._lock:
            self.check(self._tokens(self._under_way + characters))
            self._under_way += characters

    def settle(self, connection: Connection, characters: int) -> None:
        """The answers to texts of so many characters were recorded, in the transaction of the connection."""
        with self._lock:
            self._look(connection)
            self._under_way = max(0, self._under_way - characters)

    def check(self, tokens: int) -> None:
        """Refuse to buy so many tokens if a limit would be passed.

        Raises:
            SpendingLimitError: It would.
        """
        assert self._spent is not None  # noqa: S101  the callers looked
        limits, spent, name = self._limits, self._spent, self._corpus.name
        kept = "What was bought is recorded and will not be bought twice."
        if limits.tokens_per_day is not None and spent.today + tokens > limits.tokens_per_day:
            raise SpendingLimitError(
                f"Corpus {name!r} was billed {spent.today} tokens today, the next requests take about {tokens}, and "
                f"INGEST_MAX_TOKENS_PER_DAY (of a component: max_tokens_per_day) allows {limits.tokens_per_day}",
                f"{kept} Wait until {spent.day_ends:%Y-%m-%d %H:%M %Z}, or raise the limit, then run again.",
                until=spent.day_ends,
            )
        if limits.tokens_per_run is not None and spent.run + tokens > limits.tokens_per_run:
            raise SpendingLimitError(
                f"This run over corpus {name!r} was billed {spent.run} tokens, its next requests take about {tokens}, "
                f"and INGEST_MAX_TOKENS_PER_RUN (of a component: max_tokens_per_run) allows {limits.tokens_per_run}",
                f"{kept} Run `ingest-pipeline ingest` to let another run go on, or raise the limit.",
            )

    def _tokens(self, characters: int) -> int:
        return ceil(characters / self._per_token)

    def _room(self) -> int:
        assert self._spent is not None  # noqa: S101  the caller looked
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
    connection: Connection, corpus: str, run_id: str | None = None, sagas: list[UUID] | None = None
) -> TokensSpent:
    """What a corpus was billed today, and a run until now."""
    values = {"corpus": corpus, "run_id": run_id, "sagas": sagas or []}
    row = connection.execute(query("tokens_spent"), values).fetchone()
    assert row is not None  # noqa: S101  a SELECT without FROM has one row
    return TokensSpent(row["run"], row["today"], row["day_ends"])
