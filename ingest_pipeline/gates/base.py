"""The protocol of a user's gate, and the version that it judges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import lance


@dataclass(frozen=True, slots=True)
class PreparedVersion:
    """A version of a table that is prepared and not published."""

    table: lance.LanceDataset
    """The whole table as readers would see it, to read and search. It is removed when the gate returns."""
    head: lance.LanceDataset
    """The table as readers see it now."""
    documents: Sequence[str]
    """Keys of the documents that the publication adds or replaces. For a re-embedding: keys of all documents."""
    removed: Sequence[str]
    """Keys of the documents that the publication removes."""


class Gate(Protocol):
    """Judges a prepared version before readers see it.

    It runs in a child process with the environment and the network of the run. Its constructor runs in other processes
    too. It may have an attribute `seconds`, the time for one version, 120 if absent. If it raises an exception or takes
    longer, the version does not pass.
    """

    def judge(self, version: PreparedVersion) -> Sequence[str]:
        """Return what is wrong: ids, keys or sentences. Nothing: the version passes."""
        ...
