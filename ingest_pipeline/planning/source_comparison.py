"""The planner: compares the source with head, for the sensor, for runs and for the command line.

It joins the source's listing with the catalog by key: for partitions and documents given by name, or page by page over
the whole source, in memory that grows with neither. Each page is complete for its own range of keys, so it is correct
whatever happens to other pages. Only the removal guard needs a pass over all pages, to count the missing documents.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from time import monotonic

from ingest_pipeline.planning.context import IngestContext
from ingest_pipeline.planning.plan import DocumentPlan, merge_join
from ingest_pipeline.postgres import database
from ingest_pipeline.postgres.catalog import documents
from ingest_pipeline.postgres.catalog.documents import LatestDocument
from ingest_pipeline.postgres.catalog.gates import Block, read_blocks
from ingest_pipeline.postgres.catalog.holds import Hold, read_holds
from ingest_pipeline.postgres.database import Connection
from ingest_pipeline.postgres.ledger.erasures import ErasedKeys, erased_keys
from ingest_pipeline.types import SourceObject

MAX_EXCLUDED_KEYS = 1000
# One request to a source may take 90 seconds, and Postgres ends a transaction that is idle for 120.
_KEEPALIVE_SECONDS = 10.0
# For more folders than this, one listing of the whole source is faster than a listing of each folder.
_MAX_FOLDERS = 50
# Pages of this size keep memory independent of the size of the corpus.
MAX_PAGE_DOCUMENTS = 10_000


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of a page. None means no limit."""

    plans: int | None = None
    """Documents that differ."""
    seconds: float | None = None
    min_age_seconds: int = 0
    """Objects modified more recently than this are skipped, because they may still be written to."""


NO_LIMITS = Limits()


@dataclass(slots=True)
class Page:
    """What differs within a range of keys."""

    after: str = ""
    """The range begins after this key."""
    last: str | None = None
    """The last key of the range. None: the range has no end."""
    puts: list[DocumentPlan] = field(default_factory=list[DocumentPlan])
    """Documents to ingest."""
    removals: list[DocumentPlan] = field(default_factory=list[DocumentPlan])
    """Documents at head that the source lacks."""
    listed: int = 0
    """Objects of the source that are not excluded."""
    latest: int = 0
    """Documents at head."""
    excluded: Counter[str] = field(default_factory=Counter[str])
    """Number of objects that the settings exclude, by reason."""
    excluded_keys: dict[str, str] = field(default_factory=dict[str, str])
    """The reasons by key, for the first thousand objects."""
    on_hold: list[DocumentPlan] = field(default_factory=list[DocumentPlan])
    """Documents that differ but are not ingested, because a rollback put them on hold."""
    holds: Mapping[str, Hold] = field(default_factory=dict[str, Hold])
    """All holds at the time of the comparison, by key."""
    erased: int = 0
    """Objects that are not ingested, because their documents were erased."""
    erased_keys: ErasedKeys = field(default_factory=lambda: ErasedKeys({}))
    """The keys of erased documents."""
    blocked: list[DocumentPlan] = field(default_factory=list[DocumentPlan])
    """Documents that differ but are not ingested, because their prepared publication did not pass its gates."""
    blocks: Mapping[str, Block] = field(default_factory=dict[str, Block])
    """What blocked publications have prepared, by key."""
    too_recent: list[str] = field(default_factory=list[str])
    """Keys of objects that differ and may still be written to."""

    @property
    def plans(self) -> list[DocumentPlan]:
        """All documents to publish: those to ingest, then those to remove."""
        return [*self.puts, *self.removals]

    def covers(self, key: str) -> bool:
        """Whether a key is in the range."""
        return key > self.after and (self.last is None or key <= self.last)

    def unchanged(self, keys: Iterable[str]) -> list[str]:
        """The keys among these that are in the range and do not differ."""
        differing = {document.key for document in (*self.plans, *self.on_hold, *self.blocked)}.union(self.too_recent)
        return [key for key in keys if self.covers(key) and key not in differing]

    def judge_again(self) -> None:
        """Plan the blocked documents too. They are prepared again from recorded vectors."""
        self.puts += [plan for plan in self.blocked if plan.source is not None]
        self.removals += [plan for plan in self.blocked if plan.source is None]
        self.puts.sort(key=lambda plan: plan.key)
        self.blocked = []

    def exclude(self, objects: Iterable[tuple[str, str]]) -> None:
        """Count objects, given by key and reason, that the settings exclude."""
        for key, reason in objects:
            self.excluded[reason] += 1
            if len(self.excluded_keys) < MAX_EXCLUDED_KEYS:
                self.excluded_keys[key] = reason


class Planner:
    """Compares the source of a corpus with its head. Reads no document and sends no request to the embedding API.

    The catalog is read before the source is listed. Otherwise a document that another writer publishes meanwhile would
    seem to be missing from the source.

    Args:
        context: The open corpus with its source.
    """

    def __init__(self, context: IngestContext) -> None:
        self._context = context

    def page(self, after: str = "", limits: Limits = NO_LIMITS) -> Page:
        """Compare the keys after a given one, up to the limits of a page.

        Raises:
            SourceUnavailableError: The listing is incomplete, so missing documents cannot be determined.
        """
        corpus = self._context.corpus
        with (
            corpus.database.transaction() as connection,
            documents.streamed_latest(connection, corpus.generation, after=after) as latest,
        ):
            comparison = _Comparison(self._context, self._empty_page(connection, after), limits)
            listed = self._context.objects(after, on_excluded=comparison.exclude)
            return comparison.run(_keep_alive(connection, listed), latest)

    def one_pass(self) -> Iterator[Page]:
        """Compare the whole source in one listing and one snapshot of the catalog, and yield it page by page.

        Memory does not grow with the number of documents. A transaction is open until the last page was taken, so that
        no more than some minutes may pass between two pages.

        Raises:
            SourceUnavailableError: As `page`, perhaps after some pages.
        """
        corpus = self._context.corpus
        with (
            corpus.database.transaction() as connection,
            documents.streamed_latest(connection, corpus.generation) as latest,
        ):
            database.wait_for_reader(connection)
            comparison = _Comparison(self._context, self._empty_page(connection), Limits(MAX_PAGE_DOCUMENTS))
            listed = self._context.objects(on_excluded=comparison.exclude)
            yield from comparison.pages(_keep_alive(connection, listed), latest)

    def _empty_page(self, connection: Connection, after: str = "", keys: Sequence[str] | None = None) -> Page:
        corpus = self._context.corpus
        return Page(
            after,
            holds=read_holds(connection, corpus.generation, keys),
            blocks=read_blocks(connection, corpus.generation, keys),
            erased_keys=erased_keys(connection, corpus.name),
        )

    def pages(self, limits: Limits | None = None) -> Iterator[Page]:
        """Compare the whole source, page by page.

        Args:
            limits: The limits of a page. None: as many documents as memory may hold at once.

        Raises:
            SourceUnavailableError: As `page`.
        """
        limits = limits or Limits(MAX_PAGE_DOCUMENTS)
        page = self.page(limits=limits)
        yield page
        while page.last is not None:
            page = self.page(page.last, limits)
            yield page

    def plans(self, partitions: Sequence[str] | None = None) -> list[DocumentPlan]:
        """The documents of some partitions, or of the whole source, that differ from head and are not on hold.

        Raises:
            SourceUnavailableError: As `page`.
        """
        return (self.page() if partitions is None else self.partitions(partitions)).plans

    def partitions(self, names: Sequence[str]) -> Page:
        """Compare the documents of some partitions.

        Raises:
            SourceUnavailableError: As `page`.
        """
        corpus = self._context.corpus
        with corpus.database.transaction() as connection:
            latest = documents.latest_documents(connection, corpus.generation, partitions=names)
            page = self._empty_page(connection)
        return self._named(page, latest, lambda: _list_partitions(self._context, names))

    def documents(self, keys: Sequence[str]) -> Page:
        """Compare some documents.

        Raises:
            SourceUnavailableError: As `page`.
        """
        corpus = self._context.corpus
        with corpus.database.transaction() as connection:
            latest = documents.latest_documents(connection, corpus.generation, keys=keys)
            page = self._empty_page(connection, keys=keys)
        return self._named(page, latest, lambda: self._context.listed(keys))

    def _named(
        self, page: Page, latest: Sequence[LatestDocument], list_objects: Callable[[], Sequence[SourceObject]]
    ) -> Page:
        page = _Comparison(self._context, page, NO_LIMITS).run(list_objects(), latest)
        if page.removals:
            # Raises if the source is unavailable as a whole. Single look-ups cannot distinguish that from missing
            # objects.
            next(self._context.objects(), None)
        return page


class _Comparison:
    """Fills pages one after the other: joins the listing with the catalog and sorts what differs."""

    def __init__(self, context: IngestContext, page: Page, limits: Limits) -> None:
        self._context = context
        self._page = page
        self._limits = limits
        self._ends = None if limits.seconds is None else monotonic() + limits.seconds
        self._now = datetime.now(UTC)
        self._excluded: list[tuple[str, str]] = []
        """Objects that were listed and may still turn out to be after the page's last key."""

    def run(self, listed: Iterable[SourceObject], latest: Iterable[LatestDocument]) -> Page:
        """The first page, from both sides in the order of their keys."""
        return next(self.pages(listed, latest))

    def pages(self, listed: Iterable[SourceObject], latest: Iterable[LatestDocument]) -> Iterator[Page]:
        """All pages. The last one has no end, unless the time was up."""
        context = self._context
        for found in merge_join(self._selected(listed), latest):
            page = self._page
            if page.last is not None and found.key > page.last:
                break
            page.latest += found.latest is not None and not found.latest.removed
            page.listed += found.source is not None
            if page.erased_keys and found.key in page.erased_keys:
                page.erased += found.source is not None
                continue
            recipe, hold = context.recipe.fingerprint_of(found.key), page.holds.get(found.key)
            plan = found.plan(recipe, context.scheme.partition_of, hold)
            if plan is not None:
                self._add(plan)
            if self._is_full() and context.source.can_follow(found.key):
                yield self._ended(found.key)
        yield self._ended(self._page.last)

    def _ended(self, last: str | None) -> Page:
        """The current page, which ends at a key. The next one begins after it."""
        page = self._page
        page.last = last
        page.exclude((key, reason) for key, reason in self._excluded if page.covers(key))
        self._excluded = [one for one in self._excluded if not page.covers(one[0])]
        self._page = Page(last or "", holds=page.holds, blocks=page.blocks, erased_keys=page.erased_keys)
        return page

    def exclude(self, key: str, reason: str) -> None:
        """Add an object that the settings exclude."""
        self._excluded.append((key, reason))

    def _selected(self, listed: Iterable[SourceObject]) -> Iterator[SourceObject]:
        """The objects that are not excluded. A page may end among excluded ones, since there may be millions."""
        for obj in listed:
            reason = self._context.selection.exclusion_reason(obj)
            if reason is None:
                yield obj
                # Not earlier: the join reads one object ahead, and the page may end before this one.
                self._page.exclude(self._excluded)
                self._excluded.clear()
            else:
                self.exclude(obj.key, reason)
                if self._is_late() and self._context.source.can_follow(obj.key):
                    self._page.last = obj.key
                    return

    def _add(self, plan: DocumentPlan) -> None:
        if plan.is_on_hold(self._context.recipe.fingerprint_of(plan.key)):
            self._page.on_hold.append(plan)
        elif plan.is_blocked(self._page.blocks.get(plan.key), self._context.recipe.fingerprint_of(plan.key)):
            self._page.blocked.append(plan)
        elif plan.source is None:
            self._page.removals.append(plan)
        elif plan.source.is_too_recent(self._limits.min_age_seconds, self._now):
            self._page.too_recent.append(plan.key)
        else:
            self._page.puts.append(plan)

    def _is_full(self) -> bool:
        most = self._limits.plans
        return (most is not None and len(self._page.puts) + len(self._page.removals) >= most) or self._is_late()

    def _is_late(self) -> bool:
        return self._ends is not None and monotonic() > self._ends


def _keep_alive(connection: Connection, listed: Iterable[SourceObject]) -> Iterator[SourceObject]:
    """Keep the transaction alive: a listing may take longer than Postgres allows a transaction to be idle."""
    last = monotonic()
    for obj in listed:
        if monotonic() - last > _KEEPALIVE_SECONDS:
            database.keepalive(connection)
            last = monotonic()
        yield obj


def _list_partitions(context: IngestContext, partitions: Sequence[str]) -> list[SourceObject]:
    """The objects of some partitions by key, with as few requests as the scheme allows."""
    scheme = context.scheme
    keys = [key for partition in partitions if (key := scheme.document_of(partition)) is not None]
    found = {obj.key: obj for obj in context.listed(keys)}
    shared = {partition for partition in partitions if scheme.document_of(partition) is None}
    folders = {scheme.folder_of(partition) for partition in shared}
    if "" in folders or len(folders) > _MAX_FOLDERS:
        folders = {""}
    for folder in folders:
        found |= {obj.key: obj for obj in context.objects(folder=folder) if scheme.partition_of(obj.key) in shared}
    return sorted(found.values(), key=lambda obj: obj.key)
