"""The asset `chunks`: the text of each document, cut into chunks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import dagster as dg

from ingest_pipeline.assets.markdown import code_blocks
from ingest_pipeline.assets.tables import table
from ingest_pipeline.preparation.batches import PreparedDocument
from ingest_pipeline.preparation.reading.preview import BIN_CHARACTERS
from ingest_pipeline.reporting.data_versions import code_versions
from ingest_pipeline.reporting.lineage import lineage
from ingest_pipeline.resources.names import DagsterNames
from ingest_pipeline.types import Chunk, Recipe

_MAX_BAR = 24

COLUMNS = dg.TableSchema(
    columns=[
        dg.TableColumn("id", "string", "Stable: a text keeps its id while other chunks change."),
        dg.TableColumn("document", "string", "Key of the document under the source prefix."),
        dg.TableColumn("ordinal", "int", "Position among the document's chunks, from 0."),
        dg.TableColumn("start_offset", "int", "First character in the extracted text."),
        dg.TableColumn("end_offset", "int", "Position after the last character."),
        dg.TableColumn("text", "string", "The extracted text between the offsets."),
        dg.TableColumn("text_hash", "uuid", "Hash of the text, by which its vector is looked up."),
    ]
)


def chunks_spec(names: DagsterNames, recipe: Recipe, upstream: Sequence[dg.AssetKey]) -> dg.AssetSpec:
    """The spec of the asset, which the UI shows before the first materialization."""
    return dg.AssetSpec(
        names.key("chunks"),
        deps=upstream,
        description="Contiguous pieces of each document's extracted text: `extracted[start:end]` is the chunk.",
        skippable=True,
        kinds={"python", "table"},
        code_version=code_versions(recipe)["chunks"],
        metadata={"dagster/column_schema": COLUMNS, **lineage(names, "chunks", upstream)},
    )


def chunks_metadata(document: PreparedDocument) -> Mapping[str, dg.MetadataValue]:
    """Metadata of a partition that is one document."""
    count, shown = document.chunks, document.preview
    return {
        "chunks": dg.MetadataValue.int(count),
        "dagster/partition_row_count": dg.MetadataValue.int(count),
        "characters": dg.MetadataValue.int(document.characters),
        "characters_per_chunk": dg.MetadataValue.float(round(shown.characters / count, 1) if count else 0.0),
        "chunk_sizes": _histogram(shown.bins),
        "preview": preview(shown.samples),
    }


def _histogram(bins: Mapping[int, int]) -> dg.TableMetadataValue:
    """Number of chunks by size, as a table with bars."""
    most = max(bins.values(), default=1)
    rows: list[dict[str, str | int]] = [
        {
            "characters": f"{number * BIN_CHARACTERS} to {(number + 1) * BIN_CHARACTERS - 1}",
            "chunks": bins[number],
            "bar": "█" * max(1, round(bins[number] / most * _MAX_BAR)),
        }
        for number in sorted(bins)
    ]
    return table({"characters": "string", "chunks": "integer", "bar": "string"}, rows)


def preview(chunks: Sequence[Chunk]) -> dg.MetadataValue:
    """The texts of some chunks, as Markdown."""
    return code_blocks((f"Chunk {one.ordinal}, characters {one.start} to {one.end}", one.text) for one in chunks)
