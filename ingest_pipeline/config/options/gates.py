"""The options of gates: what a publication must pass before readers see it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, Field

from ingest_pipeline.extensions.loader import SCHEMA, Extension
from ingest_pipeline.types import SearchMode

_SHARE = "A share from 0 to 1. Default: not checked."


class GateOptions(BaseModel):
    """The options of a corpus that are about gates."""

    golden_set: str | None = Field(
        default=None,
        description="File of questions with the documents, chunks or texts that a search must find: JSON Lines, YAML "
        "or CSV. `eval` and the gates score it.",
        examples=["golden.jsonl"],
    )
    golden_k: int = Field(default=5, ge=1, le=1000, description="The first chunks of a search that count for a score.")
    golden_mode: SearchMode = Field(
        default="hybrid",
        description="How the questions of the golden set search: vector, text or hybrid. `vector` shows faults of a "
        "model most clearly.",
        examples=["vector"],
    )
    gate_min_recall: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description=f"Least recall@k of the golden set that a publication must have. {_SHARE}",
        examples=[0.8],
    )
    gate_max_recall_drop: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description=f"How much less recall@k than head a publication may have. {_SHARE}",
        examples=[0.05],
    )
    gate_max_empty: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description=f"Greatest share of the prepared chunks without a letter or a digit. {_SHARE}",
        examples=[0.01],
    )
    gate_max_duplicates: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description=f"Greatest share of the prepared chunks whose text another of them has. {_SHARE}",
        examples=[0.2],
    )
    gate_max_long: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description=f"Greatest share of the prepared chunks that are longer than `gate_long_characters`. {_SHARE}",
        examples=[0.05],
    )
    gate_long_characters: int = Field(
        default=4000, ge=1, description="A chunk of more characters is too long for `gate_max_long`."
    )
    gate_max_lost: int | None = Field(
        default=None,
        ge=0,
        description="Greatest number of documents that had text and have none now. Default: not checked.",
        examples=[0],
    )
    gate_max_removed: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description=f"Greatest share of the documents at head that a publication removes. {_SHARE}",
        examples=[0.1],
    )
    gate_max_drift: float | None = Field(
        default=None,
        ge=0,
        le=2,
        description="Greatest cosine distance between the mean vector of the corpus before and after a publication. "
        "Default: not checked.",
        examples=[0.05],
    )
    gate: Any = Field(
        default=None,
        description="Gates of yours, by dotted path. Each judges the prepared, unpublished version.",
        examples=["my_package.gates.NoDrafts"],
        json_schema_extra=SCHEMA,
    )


@dataclass(frozen=True, slots=True)
class GateSettings:
    """The gates of a corpus. None as a limit means that it is not checked."""

    golden_set: str | None
    golden_k: int
    golden_mode: SearchMode
    min_recall: float | None
    max_recall_drop: float | None
    max_empty: float | None
    max_duplicates: float | None
    max_long: float | None
    long_characters: int
    max_lost: int | None
    max_removed: float | None
    max_drift: float | None
    own: Sequence[Extension]
    """Gates of the user."""

    @classmethod
    def of(cls, options: GateOptions) -> GateSettings | None:
        """The gates that options describe; None if there are none."""
        found = cls(
            options.golden_set,
            options.golden_k,
            options.golden_mode,
            options.gate_min_recall,
            options.gate_max_recall_drop,
            options.gate_max_empty,
            options.gate_max_duplicates,
            options.gate_max_long,
            options.gate_long_characters,
            options.gate_max_lost,
            options.gate_max_removed,
            options.gate_max_drift,
            tuple(options.gate or ()),
        )
        shares = (found.max_empty, found.max_duplicates, found.max_long, found.max_removed)
        limits = (*shares, found.min_recall, found.max_recall_drop, found.max_lost)
        is_any = found.golden_set or found.own or found.max_drift is not None
        return found if is_any or any(limit is not None for limit in limits) else None
