"""The last asset: it writes the corpus for programs that know neither LanceDB nor Postgres."""

from pathlib import Path

import dagster as dg
import pyarrow.parquet as pq

from ingest_pipeline import CorpusAtHead


@dg.asset(
    ins={"handbook": dg.AssetIn(key=["handbook", "head"])},
    deps=["evaluation"],
    group_name="handbook",
    automation_condition=dg.AutomationCondition.eager(),
)
def export(handbook: CorpusAtHead) -> dg.MaterializeResult:
    """Documents and chunks as Parquet, in a folder for each version."""
    folder = Path(__file__).parents[2] / "export" / f"version_{handbook.version}"
    folder.mkdir(parents=True, exist_ok=True)
    documents, chunks = handbook.documents(), handbook.chunks()
    pq.write_table(documents, folder / "documents.parquet")
    pq.write_table(chunks, folder / "chunks.parquet")
    return dg.MaterializeResult(
        metadata={
            "version": handbook.version,
            "documents": documents.num_rows,
            "chunks": chunks.num_rows,
            "folder": dg.MetadataValue.path(folder),
        }
    )
