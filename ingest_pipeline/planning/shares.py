"""Divides the partitions of a corpus among runs that know nothing of each other."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from zlib import crc32

from ingest_pipeline.planning.plan import DocumentPlan


@dataclass(frozen=True, slots=True)
class Share:
    """One of several equal shares of all partitions, by a hash of their names.

    Whole partitions, because one run reports a partition. A hash, because the keys are known only once all are listed.
    """

    number: int
    """From 0 on."""
    count: int

    def of(self, plans: Iterable[DocumentPlan]) -> list[DocumentPlan]:
        """The plans of this share."""
        return [plan for plan in plans if crc32(plan.partition.encode()) % self.count == self.number]


EVERYTHING = Share(0, 1)
