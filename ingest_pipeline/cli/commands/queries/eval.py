"""The command `eval`."""

from __future__ import annotations

import asyncio
from typing import Any

import click

from ingest_pipeline.cli import _session, _settings
from ingest_pipeline.cli._group import as_json, command
from ingest_pipeline.cli._numbers import WholeNumber
from ingest_pipeline.cli._output import print_rows
from ingest_pipeline.cli._terminal import echo, print_json
from ingest_pipeline.errors import ConfigurationError
from ingest_pipeline.gates.evaluate import evaluate_configured, published_version
from ingest_pipeline.gates.golden_set import read_golden_set
from ingest_pipeline.gates.scores import Scores
from ingest_pipeline.types import SEARCH_MODES, SearchMode, counted

_MAX_ROWS = 20


@command
@click.option(
    "--golden-set",
    metavar="FILE",
    help="File of the questions: JSON Lines, YAML or CSV. Default: INGEST_GOLDEN_SET.",
)
@click.option("--version", "name", metavar="VERSION", help="Version or saga to score, see `history`. Default: head.")
@click.option("--against", metavar="VERSION", help="Compare with this version or saga.")
@click.option("--k", type=WholeNumber(1, 1000), help="Chunks of a search that count. Default: INGEST_GOLDEN_K.")
@click.option("--mode", type=click.Choice(SEARCH_MODES), help="How to search. Default: INGEST_GOLDEN_MODE.")
@as_json
def eval(  # noqa: A001  named as the command is
    *,
    golden_set: str | None,
    name: str | None,
    against: str | None,
    k: int | None,
    mode: SearchMode | None,
    as_json: bool,
) -> None:
    """Score a golden set of questions at head or any version, and compare two versions.

    Recall@k is the share of what is expected that is among the first k chunks. Neither a reranker nor a restriction
    of access applies.
    """
    settings = _settings.settings()
    file = golden_set or settings.golden_set
    if file is None:
        raise ConfigurationError("There is no golden set", "Name a file with --golden-set, or set INGEST_GOLDEN_SET.")
    questions = read_golden_set(file)
    k, mode = k or settings.golden_k, mode or settings.golden_mode
    with _session.corpus(settings) as corpus:
        names = [name] if against is None else [name, against]
        versions = [published_version(corpus, one) for one in names]
        here, *others = asyncio.run(evaluate_configured(settings, corpus, questions, versions, k=k, mode=mode))
    other = others[0] if others else None
    if as_json:
        print_json(_as_value(here) | ({} if other is None else {"against": _as_value(other)}))
        return
    for scores in (here, *others):
        echo(_sentence(scores))
    if other is not None:
        print_rows(*_compared(here, other))
    rows = [
        {"question": one.query, "recall": f"{one.recall:.3f}", "not found": ", ".join(one.missing)}
        for one in here.missed[:_MAX_ROWS]
    ]
    print_rows(f"{counted(len(here.missed), 'question')} of version {here.version} did not find everything", rows)


def _sentence(scores: Scores) -> str:
    return (
        f"Version {scores.version}: recall@{scores.k} {scores.recall:.3f}, nDCG@{scores.k} {scores.ndcg:.3f}, MRR "
        f"{scores.mrr:.3f} over {counted(len(scores.questions), 'question')}, by {scores.mode} search"
    )


def _compared(here: Scores, other: Scores) -> tuple[str, list[dict[str, Any]]]:
    changed = here.changed_since(other)
    rows = [
        {
            "question": after.query,
            f"recall at {other.version}": f"{before.recall:.3f}",
            f"recall at {here.version}": f"{after.recall:.3f}",
            f"nDCG at {other.version}": f"{before.ndcg:.3f}",
            f"nDCG at {here.version}": f"{after.ndcg:.3f}",
        }
        for before, after in changed[:_MAX_ROWS]
    ]
    difference = here.recall - other.recall
    return f"Recall changed by {difference:+.3f}; {counted(len(changed), 'question')} changed", rows


def _as_value(scores: Scores) -> dict[str, Any]:
    return {
        "version": scores.version,
        "k": scores.k,
        "mode": scores.mode,
        "recall": scores.recall,
        "ndcg": scores.ndcg,
        "mrr": scores.mrr,
        "questions": [
            {
                "query": one.query,
                "recall": one.recall,
                "ndcg": one.ndcg,
                "reciprocal_rank": one.reciprocal_rank,
                "missing": one.missing,
            }
            for one in scores.questions
        ],
    }
