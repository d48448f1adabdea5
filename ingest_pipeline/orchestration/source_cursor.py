"""The source sensor's way through a corpus, tick by tick.

What is new or changed is requested as soon as a page shows it. What is gone is only counted, until the pass has seen
all keys: then the removal guard judges, and the next pass may take out as many documents as were counted. The cursor
holds no more than that, so losing it costs one pass and forgets nothing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from ingest_pipeline.planning.plan import DocumentPlan
from ingest_pipeline.planning.planner import Page
from ingest_pipeline.planning.removal_guard import is_suspicious


@dataclass(slots=True)
class SourcePass:
    """Where a pass stands, and what it counted."""

    after: str = ""
    """The next page begins behind this key."""
    latest: int = 0
    """Documents at head, so far."""
    gone: int = 0
    """Of these, the source holds so many no more."""
    removable: int = 0
    """How many may be taken out in this pass: what the last one counted, if the guard let it pass."""

    @classmethod
    def parse(cls, cursor: str | None) -> SourcePass:
        """Read a cursor; a new pass begins if there is none, or one that is not ours."""
        try:
            values = json.loads(cursor or "{}")
            return cls(str(values["after"]), *(int(values[name]) for name in ("latest", "gone", "removable")))
        except (ValueError, TypeError, KeyError):
            return cls()

    def dump(self) -> str:
        """The cursor."""
        return json.dumps(asdict(self))

    def advance(self, page: Page) -> Sequence[DocumentPlan]:
        """Take a page into account; returns the removals that may be requested now."""
        self.latest += page.latest
        self.gone += len(page.removals)
        if not page.after and page.last is None:
            self.removable = self._verdict
        removals = page.removals[: self.removable]
        self.removable -= len(removals)
        self.after = page.last or ""
        return removals

    @property
    def ended(self) -> bool:
        """Whether all keys were seen."""
        return not self.after

    @property
    def is_suspicious(self) -> bool:
        """Whether a person has to confirm what is gone, as far as it was counted."""
        return is_suspicious(self.gone, self.latest)

    @property
    def next(self) -> SourcePass:
        """The pass after this one has ended."""
        return SourcePass(removable=self._verdict)

    @property
    def _verdict(self) -> int:
        return 0 if self.is_suspicious else self.gone
