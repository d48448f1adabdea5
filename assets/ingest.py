"""The one step that makes all three assets of a corpus, and tells Dagster what it published."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NoReturn

import dagster as dg
from pydantic import Field

from ingest_pipeline import catalog, ledger
from ingest_pipeline.assets.chunks import chunks_metadata, chunks_spec
from ingest_pipeline.assets.embeddings import embeddings_metadata, embeddings_spec, run_metadata
from ingest_pipeline.assets.metadata import metadata_metadata, metadata_spec
from ingest_pipeline.assets.partitions import document_partitions
from ingest_pipeline.dead_runs import name_process
from ingest_pipeline.embedding import Embedder
from ingest_pipeline.errors import EmbeddingUnavailableError, IngestError, StaleError, UnavailableError
from ingest_pipeline.ingestion import Ingestion, Publication, Summary
from ingest_pipeline.pipeline import PipelineSettings, plan_and_held, release_holds
from ingest_pipeline.planning import DocumentPlan
from ingest_pipeline.preparation import Workshop
from ingest_pipeline.publication_view import DocumentView, view_publication
from ingest_pipeline.resources.embedder import OpenAIEmbedderResource
from ingest_pipeline.resources.keys import resource_key, resource_of
from ingest_pipeline.resources.lancedb import VersionedLanceDBResource
from ingest_pipeline.resources.source import DocumentSourceResource

_RESOURCES = (DocumentSourceResource, VersionedLanceDBResource, OpenAIEmbedderResource)


class IngestConfig(dg.Config):
    """Settings of one run, for the Launchpad."""

    partitions: list[str] = Field(
        default=[],
        description="For a run without partitions: bring these to what the source holds now. Empty: all that differ.",
    )
    release_holds: bool = Field(
        default=True,
        description="Ingest the named partitions also if a rollback holds them. The sensor says no.",
    )
    chunk_size: int | None = Field(default=None, description="Characters in a chunk, instead of the corpus' own.")
    chunk_overlap: int | None = Field(
        default=None, description="Characters a chunk repeats, instead of the corpus' own."
    )


def ingest_assets(settings: PipelineSettings, owners: Sequence[str], group: str, pool: str) -> dg.AssetsDefinition:
    """Chunks, embeddings and metadata of a corpus, as one step whose outputs cannot be torn apart."""
    corpus, recipe = settings.corpus, settings.recipe

    @dg.multi_asset(
        name=f"{corpus}_ingest",
        specs=[
            chunks_spec(corpus, recipe, owners, group),
            embeddings_spec(corpus, recipe, settings.table_uri, owners, group),
            metadata_spec(corpus, owners, group),
        ],
        partitions_def=document_partitions(corpus),
        backfill_policy=dg.BackfillPolicy.single_run(),
        can_subset=False,
        pool=pool,
        required_resource_keys={resource_key(corpus, kind) for kind in _RESOURCES},
    )
    def ingest(context: dg.AssetExecutionContext, config: IngestConfig) -> Iterator[dg.AssetMaterialization]:
        source = resource_of(context.resources, corpus, DocumentSourceResource)
        lancedb = resource_of(context.resources, corpus, VersionedLanceDBResource)
        embedder = resource_of(context.resources, corpus, OpenAIEmbedderResource)
        # Nobody else notices a run that dies together with the code server which started it.
        name_process(context.instance, context.run.run_id)
        # A run may be launched with other resources than the definitions name.
        wanted = replace(
            settings,
            source=source.url,
            lancedb_uri=lancedb.uri,
            embedding_model=embedder.model,
            embedding_dimensions=embedder.dimensions,
            chunk_size=settings.chunk_size if config.chunk_size is None else config.chunk_size,
            chunk_overlap=settings.chunk_overlap if config.chunk_overlap is None else config.chunk_overlap,
        )
        partitions = _wanted_partitions(context, config)
        try:
            with lancedb.workshop(wanted) as workshop:
                if partitions is not None and config.release_holds:
                    release_holds(workshop.corpus, partitions)
                plans, held = plan_and_held(workshop, partitions)
                context.log.info(f"{len(held)} documents are held, because a person rolled them back")
                left_alone = {plan.partition for plan in held}
                told_of = [partition for partition in partitions or [] if partition not in left_alone]
                summary = _Step(context, workshop, embedder).run(plans, told_of)
        except IngestError as error:
            _retry_or_fail(error)
        _fail_if_any_failed(corpus, summary)
        yield from ()  # the events were logged partition by partition, after each publication

    return ingest


def _retry_or_fail(error: IngestError) -> NoReturn:
    """Run the step again after what passes by itself. The embedding client has retried for long before it gives up."""
    if isinstance(error, UnavailableError | StaleError) and not isinstance(error, EmbeddingUnavailableError):
        raise dg.RetryRequested(max_retries=2, seconds_to_wait=5) from error
    raise dg.Failure(str(error), allow_retries=False) from error


def _wanted_partitions(context: dg.AssetExecutionContext, config: IngestConfig) -> list[str] | None:
    if context.has_partition_key or context.has_partition_key_range:
        return list(context.partition_keys)
    return config.partitions or None


class _Step:
    """One execution of the step."""

    def __init__(self, context: dg.AssetExecutionContext, workshop: Workshop, embedder: OpenAIEmbedderResource) -> None:
        self._context = context
        self._workshop = workshop
        self._embedder = embedder
        self._definition = document_partitions(workshop.corpus.name)

    def run(self, plans: Sequence[DocumentPlan], partitions: Sequence[str]) -> Summary:
        """Publish the plans; what of the wanted partitions needed nothing is materialized as unchanged."""
        self._context.log.info(
            f"{len(plans)} documents of corpus {self._workshop.corpus.name!r} differ from the source"
        )
        self._add_partitions([plan.partition for plan in plans if plan.source is not None])
        try:
            summary = asyncio.run(self._ingest(plans))
        finally:
            if plans:
                self._report_spending()
        planned = {plan.partition for plan in plans} - {plan.partition for plan in summary.unchanged}
        self._report_unchanged([partition for partition in partitions if partition not in planned])
        return summary

    async def _ingest(self, plans: Sequence[DocumentPlan]) -> Summary:
        if not plans:
            return Summary()
        with self._embedder.endpoint() as endpoint:
            if self._embedder.is_local:
                self._context.log.info(f"No key and no endpoint are set: the local model {endpoint.model} embeds")
            async with Embedder(endpoint) as embedder:
                ingestion = Ingestion(self._workshop, embedder, run_id=self._context.run.run_id, report=self._report)
                return await ingestion.run(plans)

    def _add_partitions(self, partitions: Sequence[str]) -> None:
        name = self._definition.name
        assert name is not None  # noqa: S101  ours has one
        known = set(self._context.instance.get_dynamic_partitions(name))
        self._context.instance.add_dynamic_partitions(name, sorted(set(partitions) - known))

    def _report(self, publication: Publication) -> None:
        """Materialize what was just published. Nothing is ever materialized before."""
        for view in view_publication(self._workshop.corpus, publication):
            self._materialize(view)
        name = self._definition.name
        assert name is not None  # noqa: S101  ours has one
        for plan in publication.removed:
            self._context.log.info(f"Document {plan.key!r} is gone from the source and from both stores")
            self._context.instance.delete_dynamic_partition(name, plan.partition)
        with self._workshop.corpus.database.transaction() as connection:
            ledger.mark_reported(connection, publication.saga)

    def _materialize(self, view: DocumentView) -> None:
        recipe = self._workshop.recipe
        self._log("chunks", view.partition, view.source.etag, chunks_metadata(view))
        self._log("embeddings", view.partition, view.source.etag, embeddings_metadata(view, recipe))
        self._log("metadata", view.partition, view.source.etag, metadata_metadata(view))

    def _report_spending(self) -> None:
        """Say what the run has spent so far, also if it fails: that is paid for like the rest."""
        run_id = self._context.run.run_id
        try:
            with self._workshop.corpus.database.transaction() as connection:
                progress, costs = catalog.run_progress(connection, run_id), ledger.costs(connection, run_id=run_id)
        except UnavailableError:
            return  # the run itself will say so, and `status` adds it up in any case
        key = dg.AssetKey([self._workshop.corpus.name, "embeddings"])
        self._context.log_event(dg.AssetObservation(key, metadata=run_metadata(progress, costs)))

    def _report_unchanged(self, partitions: Sequence[str]) -> None:
        with self._workshop.corpus.database.transaction() as connection:
            states = catalog.partition_states(connection, self._workshop.corpus.name, partitions)
        standing = {partition: state.etag for partition, state in states.items()}
        for partition in partitions:
            if partition not in standing:
                raise dg.Failure(f"Partition {partition!r} names no document: the source has none, and none stands")
            unchanged = {"status": dg.MetadataValue.text("unchanged: the same bytes and recipe stand at head")}
            for asset in ("chunks", "embeddings", "metadata"):
                self._log(asset, partition, standing[partition], unchanged)

    def _log(self, asset: str, partition: str, etag: str, metadata: Mapping[str, dg.MetadataValue]) -> None:
        key = dg.AssetKey([self._workshop.corpus.name, asset])
        version = f"{etag}/{self._workshop.recipe.fingerprint}"
        tags = {"dagster/data_version": version}
        self._context.log_event(dg.AssetMaterialization(key, partition=partition, metadata=metadata, tags=tags))


def _fail_if_any_failed(corpus: str, summary: Summary) -> None:
    if not summary.failed:
        return
    failed = {plan.partition: error for plan, error in summary.failed.values()}
    first = next(iter(failed.values()))
    published = sum(len(publication.documents) for publication in summary.publications)
    raise dg.Failure(
        f"{len(failed)} documents of corpus {corpus!r} could not be ingested, {published} were published. {first}",
        metadata={"failed": dg.MetadataValue.md(_table(failed)), "published": dg.MetadataValue.int(published)},
        allow_retries=False,
    )


def _table(failed: dict[str, IngestError]) -> str:
    lines = ["| partition | problem |", "|:---|:---|"]
    for partition, error in sorted(failed.items()):
        problem = str(error).replace("|", "\\|")
        lines.append(f"| {partition} | {problem} |")
    return "\n".join(lines)
