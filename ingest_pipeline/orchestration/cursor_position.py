"""The cursor of the source sensor: its position in the source, and how many documents the source lacks.

New and changed documents are requested as soon as a page shows them. Missing ones are only counted until the pass has
seen all keys. Then the removal guard decides, and the next pass may remove as many documents as were counted. The
cursor holds nothing else, so losing it costs one pass and forgets nothing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from time import time

from ingest_pipeline.planning.lag import oldest_change
from ingest_pipeline.planning.plan import DocumentPlan
from ingest_pipeline.planning.removal_guard import is_suspicious
from ingest_pipeline.planning.source_comparison import Page

_COUNTS = ("latest", "gone", "removable", "behind", "oldest", "due", "equal_at")


@dataclass(slots=True)
class SourceCursor:
    """The position of a pass, and its counts."""

    after: str = ""
    """The next page begins after this key."""
    latest: int = 0
    """Documents at head, counted so far."""
    gone: int = 0
    """How many of them the source lacks."""
    removable: int = 0
    """How many documents this pass may remove: those that the last pass counted, if the guard allowed them."""
    behind: int = 0
    """Documents that differ, counted so far."""
    oldest: int = 0
    """When the oldest of these changes was made, in seconds since the epoch. 0: no time of a change is known."""
    due: int = 0
    """Documents, counted so far, that need a run now or soon."""
    equal_at: int = 0
    """When the last pass ended, if no document was due, in seconds since 1970. 0: some were."""

    @classmethod
    def parse(cls, cursor: str | None) -> SourceCursor:
        """Read a cursor. A new pass begins if there is none or if it is malformed."""
        try:
            values = json.loads(cursor or "{}")
            return cls(str(values["after"]), *(int(values[name]) for name in _COUNTS))
        except (ValueError, TypeError, KeyError):
            return cls()

    def dump(self) -> str:
        """The cursor as text."""
        return json.dumps(asdict(self))

    def advance(self, page: Page) -> Sequence[DocumentPlan]:
        """Count a page; returns the removals that may be requested now."""
        self.latest += page.latest
        self.gone += len(page.removals)
        if not page.after and page.last is None:
            self.removable = self._allowed
        removals = page.removals[: self.removable]
        self.removable -= len(removals)
        self.after = page.last or ""
        return removals

    def count_lag(self, plans: Sequence[DocumentPlan]) -> None:
        """Count the documents of a page that differ from the source and can be read."""
        self.behind += len(plans)
        found = oldest_change(plans)
        if found is not None:
            seconds = int(found.timestamp())
            self.oldest = min(self.oldest or seconds, seconds)

    @property
    def lag(self) -> tuple[int, datetime | None]:
        """How many documents differ, and when the oldest of their changes was made."""
        return self.behind, datetime.fromtimestamp(self.oldest, UTC) if self.oldest else None

    @property
    def ended(self) -> bool:
        """Whether all keys were seen."""
        return not self.after

    @property
    def is_suspicious(self) -> bool:
        """Whether the removals counted so far need a confirmation."""
        return is_suspicious(self.gone, self.latest)

    @property
    def next(self) -> SourceCursor:
        """The cursor of the next pass."""
        return SourceCursor(removable=self._allowed, equal_at=0 if self.due else int(time()))

    def rests_until(self, seconds: float) -> float | None:
        """When the next pass begins, if passes rest for some seconds after one without due documents. None: now."""
        ends = self.equal_at + seconds
        return ends if not self.after and ends > time() else None

    @property
    def _allowed(self) -> int:
        return 0 if self.is_suspicious else self.gone
