"""Source and catalog compared from the first key to the last, page by page, in memory that depends on neither.

A page says all that differs within its range of keys, so it is right by itself whatever became of those before it. Only
how many documents are gone has to be counted over a whole pass: the removal guard judges by that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from time import monotonic

from ingest_pipeline.planning.context import IngestContext
from ingest_pipeline.planning.plan import DocumentPlan, merge_join, without_held
from ingest_pipeline.postgres import catalog
from ingest_pipeline.postgres.database import Connection
from ingest_pipeline.postgres.holds import Hold, read_holds
from ingest_pipeline.types import SourceObject

_NAMED = 1000
# One request to a source may take a minute and a half, and Postgres ends a transaction that idles for two.
_SILENT_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Limits:
    """Where a page ends at the latest; None is no limit."""

    plans: int | None = None
    """Documents that differ."""
    seconds: float | None = None
    min_age_seconds: int = 0
    """Objects that were modified so little time ago are left for later: they may still be written."""


NO_LIMITS = Limits()


@dataclass(slots=True)
class Page:
    """What differs within a range of keys."""

    after: str
    """The range begins behind this key."""
    last: str | None = None
    """The range ends with this key. None: with the last key there is."""
    puts: list[DocumentPlan] = field(default_factory=list[DocumentPlan])
    removals: list[DocumentPlan] = field(default_factory=list[DocumentPlan])
    listed: int = 0
    latest: int = 0
    """Documents at head."""
    left_out: Counter[str] = field(default_factory=Counter[str])
    """How many objects the settings leave out, by reason."""
    left_out_keys: dict[str, str] = field(default_factory=dict[str, str])
    """Reasons by key, of the first thousand."""
    held: list[DocumentPlan] = field(default_factory=list[DocumentPlan])
    """What a rollback holds back."""
    holds: Mapping[str, Hold] = field(default_factory=dict[str, Hold])
    """All that there were when the page was compared, by key."""
    unsettled: list[str] = field(default_factory=list[str])
    """Keys of objects that differ and may still be written."""

    def covers(self, key: str) -> bool:
        """Whether a key is in the range."""
        return key > self.after and (self.last is None or key <= self.last)

    def settled(self, keys: Iterable[str]) -> list[str]:
        """Those of the keys in the range that do not differ."""
        differing = {document.key for document in (*self.puts, *self.removals, *self.held)}.union(self.unsettled)
        return [key for key in keys if self.covers(key) and key not in differing]

    def on_excluded(self, objects: Iterable[tuple[str, str]]) -> None:
        """Note objects, by key and reason, that the settings leave out."""
        for key, reason in objects:
            self.left_out[reason] += 1
            if len(self.left_out_keys) < _NAMED:
                self.left_out_keys[key] = reason


def compare(context: IngestContext, after: str = "", limits: Limits = NO_LIMITS) -> Page:
    """The page behind a key.

    Raises:
        SourceUnavailableError: The source did not list all of it. Nothing is concluded from a part.
    """
    page = Page(after)
    ends = None if limits.seconds is None else monotonic() + limits.seconds
    now = datetime.now(UTC)
    left_out: list[tuple[str, str]] = []
    # The catalog as it is before the source is listed: else what another writer publishes meanwhile would look gone.
    with (
        context.corpus.database.transaction() as connection,
        catalog.streamed_standing(connection, context.corpus.generation, after=after) as latest,
    ):
        page.holds = read_holds(connection, context.corpus.generation)
        listed = _kept_awake(
            connection, context.objects(after, on_excluded=lambda key, reason: left_out.append((key, reason)))
        )
        for pair in merge_join(_taken(context, page, listed, left_out, ends), latest):
            if page.last is not None and pair.key > page.last:
                break
            page.latest += pair.latest is not None and not pair.latest.removed
            page.listed += pair.source is not None
            found = pair.plan(context.recipe.fingerprint, context.scheme.partition_of)
            if found is not None:
                due, held = without_held([found], page.holds, context.recipe.fingerprint)
                page.held += held
                _note(page, due, limits.min_age_seconds, now)
            full = limits.plans is not None and len(page.puts) + len(page.removals) >= limits.plans
            if (full or (ends is not None and monotonic() > ends)) and context.source.can_follow(pair.key):
                page.last = pair.key
                break
    page.on_excluded((key, reason) for key, reason in left_out if page.covers(key))
    return page


def passed(context: IngestContext, limits: Limits) -> Generator[Page]:
    """All pages of one pass."""
    page = compare(context, limits=limits)
    yield page
    while page.last is not None:
        page = compare(context, page.last, limits)
        yield page


def _kept_awake(connection: Connection, listed: Iterable[SourceObject]) -> Iterator[SourceObject]:
    """A listing may take longer than Postgres lets a transaction idle, and the catalog has to be as it was before."""
    asked = monotonic()
    for obj in listed:
        if monotonic() - asked > _SILENT_SECONDS:
            catalog.keepalive(connection)
            asked = monotonic()
        yield obj


def _taken(
    context: IngestContext,
    page: Page,
    listed: Iterable[SourceObject],
    left_out: list[tuple[str, str]],
    ends: float | None,
) -> Iterator[SourceObject]:
    """What the settings take. A page may end among what they leave out, of which there may be millions."""
    for obj in listed:
        reason = context.selection.exclusion_reason(obj)
        if reason is None:
            yield obj
            # Not before: the joining reads one document ahead, and the page may end before it.
            page.on_excluded(left_out)
            left_out.clear()
        else:
            left_out.append((obj.key, reason))
            if ends is not None and monotonic() > ends and context.source.can_follow(obj.key):
                page.last = obj.key
                return


def _note(page: Page, due: Iterable[DocumentPlan], min_age_seconds: int, now: datetime) -> None:
    for document in due:
        if document.source is None:
            page.removals.append(document)
        elif document.source.is_too_recent(min_age_seconds, now):
            page.unsettled.append(document.key)
        else:
            page.puts.append(document)
