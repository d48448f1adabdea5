"""Files in object storage become a searchable LanceDB table and a Postgres catalog that never disagree."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ingest_pipeline.orchestration.component import IngestPipelineComponent

__all__ = ["IngestPipelineComponent"]


def __getattr__(name: str) -> object:
    # Imported on first use: programs that use the engine alone do not wait for Dagster.
    if name == "IngestPipelineComponent":
        from ingest_pipeline.orchestration.component import IngestPipelineComponent  # noqa: PLC0415

        return IngestPipelineComponent
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
