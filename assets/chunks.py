"""The asset `chunks`: the text of each document, cut into pieces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import dagster as dg

from ingest_pipeline.assets.markdown import code_blocks
from ingest_pipeline.assets.tables import table
from ingest_pipeline.ingestion.report import ChunkSample, DocumentView
from ingest_pipeline.reporting.data_versions import code_versions
from ingest_pipeline.types import Recipe

_PREVIEWED = 3
_BIN = 100
_BAR = 24

COLUMNS = dg.TableSchema(
    columns=[
        dg.TableColumn("id", "string", "Stable: the same text at the same place in the count keeps its id."),
        dg.TableColumn("document", "string", "Key of the document under the source prefix."),
        dg.TableColumn("ordinal", "int", "Position among the document's chunks, from 0."),
        dg.TableColumn("start_offset", "int", "First character in the extracted text."),
        dg.TableColumn("end_offset", "int", "After the last character."),
        dg.TableColumn("text", "string", "The extracted text between the offsets."),
        dg.TableColumn("text_hash", "uuid", "What a vector is looked up by."),
    ]
)


def chunks_spec(corpus: str, recipe: Recipe, owners: Sequence[str], group: str) -> dg.AssetSpec:
    """What the UI says of the asset before it is made."""
    return dg.AssetSpec(
        [corpus, "chunks"],
        description="Contiguous pieces of each document's extracted text: `extracted[start:end]` is the chunk.",
        skippable=True,
        group_name=group,
        kinds={"python", "table"},
        owners=owners,
        code_version=code_versions(recipe)["chunks"],
        metadata={"dagster/column_schema": COLUMNS},
    )


def chunks_metadata(view: DocumentView) -> Mapping[str, dg.MetadataValue]:
    """What the UI shows of one partition."""
    sizes = [chunk.end_offset - chunk.start_offset for chunk in view.chunks]
    return {
        "chunks": dg.MetadataValue.int(len(sizes)),
        "dagster/partition_row_count": dg.MetadataValue.int(len(sizes)),
        "characters": dg.MetadataValue.int(view.characters),
        "mean_size": dg.MetadataValue.float(round(sum(sizes) / len(sizes), 1) if sizes else 0.0),
        "sizes": _histogram(sizes),
        "preview": preview(view.samples[:_PREVIEWED]),
    }


def _histogram(sizes: Sequence[int]) -> dg.TableMetadataValue:
    """Chunks by size, as a table whose bars are as long as the counts."""
    bins: dict[int, int] = {}
    for size in sizes:
        bins[size // _BIN] = bins.get(size // _BIN, 0) + 1
    most = max(bins.values(), default=1)
    rows: list[dict[str, str | int]] = [
        {
            "characters": f"{number * _BIN} to {number * _BIN + _BIN - 1}",
            "chunks": bins[number],
            "bar": "█" * max(1, round(bins[number] / most * _BAR)),
        }
        for number in sorted(bins)
    ]
    return table({"characters": "string", "chunks": "integer", "bar": "string"}, rows)


def preview(samples: Sequence[ChunkSample]) -> dg.MetadataValue:
    """The texts of some chunks."""
    return code_blocks(
        (f"Chunk {sample.ordinal}, characters {sample.start_offset} to {sample.end_offset}", sample.text)
        for sample in samples
    )
