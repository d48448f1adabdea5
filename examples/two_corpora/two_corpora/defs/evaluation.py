"""An asset after the corpus: it measures whether searches find the right pages."""

import dagster as dg

from ingest_pipeline import CorpusAtHead

# Questions, and the page that answers each.
GOLDEN = {
    "How many days of leave do I have?": "leave.md",
    "When is a doctor's note needed?": "leave.md",
    "How long may a journey by train be?": "travel.md",
    "What do I need before I go abroad?": "travel.md",
}


@dg.asset(
    ins={"handbook": dg.AssetIn(key=["handbook", "head"])},
    group_name="handbook",
    automation_condition=dg.AutomationCondition.eager(),
)
def evaluation(handbook: CorpusAtHead) -> dg.MaterializeResult:
    """Recall: the share of the questions whose page is the first hit."""
    rows: list[dg.TableRecord] = []
    for question, page in GOLDEN.items():
        hits = handbook.search(question, limit=1)
        found = hits[0].document if hits else ""
        rows.append(dg.TableRecord({"question": question, "expected": page, "found": found}))
    right = [row for row in rows if row.data["found"] == row.data["expected"]]
    return dg.MaterializeResult(
        metadata={
            "version": handbook.version,
            "recall": len(right) / len(rows),
            "questions": dg.MetadataValue.table(rows),
        }
    )
