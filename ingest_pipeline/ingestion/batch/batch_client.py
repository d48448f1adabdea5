"""Submits and collects the batch jobs of a corpus, for the command line and for Dagster."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from ingest_pipeline.embedding.base import OpenAISettings
from ingest_pipeline.embedding.local import is_local
from ingest_pipeline.errors import ConfigurationError
from ingest_pipeline.event_loop import run_blocking
from ingest_pipeline.ingestion.batch import batch_jobs
from ingest_pipeline.ingestion.recipe_guard import RecipeGuard
from ingest_pipeline.planning.backoff import without_final
from ingest_pipeline.planning.context import IngestContext
from ingest_pipeline.planning.plan import DocumentPlan
from ingest_pipeline.planning.source_comparison import Planner

if TYPE_CHECKING:
    from ingest_pipeline.embedding.openai import OpenAIEmbedder

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class BatchClient:
    """Submits and collects batch jobs with the API of the settings.

    Raises:
        ConfigurationError: The local model and embedders of the user have no batch jobs.
    """

    settings: OpenAISettings
    """Settings of the API that takes batch jobs."""
    execute: Callable[[Coroutine[Any, Any, Any]], Any] = run_blocking
    """Runs a coroutine to its end."""

    def __post_init__(self) -> None:
        if is_local(self.settings.model, self.settings.base_url):
            raise ConfigurationError("The local model costs nothing and has no batch jobs", "Ingest as usual.")
        if self.settings.embedder is not None:
            name = self.settings.embedder.hook.name
            raise ConfigurationError(f"The {name} has no batch jobs, which are of an API", "Ingest as usual.")

    def submit(
        self, context: IngestContext, partitions: Sequence[str] | None = None, *, confirm_recipe: bool = False
    ) -> int:
        """Submit batch jobs for the missing vectors of documents that differ.

        Args:
            context: The open corpus with its source.
            partitions: The partitions. None: all documents that differ.
            confirm_recipe: Include documents that differ by recipe alone, however many they are.

        Returns:
            The number of jobs.

        Raises:
            RecipeWithheldError: Many documents differ by recipe alone. Batch jobs for the others were submitted.
        """
        guard = RecipeGuard(context, confirmed=confirm_recipe)
        if confirm_recipe:
            guard.accept()
        planner, withheld = Planner(context), list[DocumentPlan]()

        def due() -> Iterator[DocumentPlan]:
            for page in planner.pages():
                found, left = guard.split(without_final(context, page.plans)[0])
                withheld.extend(left[:1])
                yield from found

        if partitions is None:
            plans: Iterable[DocumentPlan] = due()
        else:
            plans, withheld = guard.split(planner.plans(partitions), are_named=True)
        submitted = self._run(lambda embedder: batch_jobs.submit(context, embedder, plans))
        if withheld and guard.error is not None:
            raise guard.error
        return len(submitted)

    def collect(self, context: IngestContext) -> list[batch_jobs.Collected]:
        """Collect the vectors of batch jobs that have ended."""
        return self._run(lambda embedder: batch_jobs.collect(context, embedder))

    def _run(self, work: Callable[[OpenAIEmbedder], Awaitable[T]]) -> T:
        from ingest_pipeline.embedding.openai import OpenAIEmbedder  # noqa: PLC0415  a second of CPU to import

        async def run() -> T:
            async with OpenAIEmbedder(self.settings) as embedder:
                return await work(embedder)

        result: T = self.execute(run())
        return result
