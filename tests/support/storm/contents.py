"""What every document may be seen as: each state that the driver gave it, known before it is written."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from ingest_pipeline.chunking.content_defined import Chunker

_ABSENT = "absent"


@dataclass(frozen=True, slots=True)
class State:
    """One thing that a file was made into."""

    key: str
    sequence: int
    """Counts the states of one key; 0 is before the first."""
    text: str | None
    """None: there is no file."""
    bad: bool = False
    """It cannot be ingested: what was published before stays."""


def fingerprint(text: str | None) -> str:
    """Equal for texts that differ in white space only, which is what cutting into chunks may drop."""
    return _ABSENT if text is None else hashlib.sha256("".join(text.split()).encode()).hexdigest()


class Contents:
    """The states of all keys, written by the driver and asked by readers.

    Args:
        chunker: Cuts a text as the corpus does, to know which texts have to be embedded.
    """

    def __init__(self, chunker: Chunker) -> None:
        self._chunker = chunker
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._current: dict[str, State] = {}
        self._changed: dict[str, float] = {}
        self._visible: defaultdict[str, dict[int, str]] = defaultdict(lambda: {0: _ABSENT})
        self._needed: Counter[str] = Counter()

    def begin(self, key: str, text: str | None, *, bad: bool = False) -> State:
        """Know a state before the source has it."""
        with self._lock:
            self._counts[key] += 1
            state = State(key, self._counts[key], text, bad)
            if not bad:
                self._visible[key][state.sequence] = fingerprint(text)
            before = self._current.get(key)
        had = set() if before is None or before.bad else self._chunks(before.text)
        with self._lock:
            self._needed.update(self._chunks(text) - had)
        return state

    def done(self, state: State) -> None:
        """The source has it."""
        with self._lock:
            self._current[state.key] = state
            self._changed[state.key] = time.monotonic()

    def current(self) -> dict[str, State]:
        """What the source holds, by key; files that were removed included."""
        with self._lock:
            return dict(self._current)

    def settled(self, seconds: float) -> dict[str, State]:
        """As `current`, without files that were emptied less than so many seconds ago: a run leaves these alone."""
        with self._lock:
            recent = {key for key, changed in self._changed.items() if time.monotonic() - changed < seconds}
            return {key: state for key, state in self._current.items() if state.text != "" or key not in recent}

    def known(self) -> list[str]:
        with self._lock:
            return list(self._visible)

    def sequences(self, key: str, seen: str) -> list[int]:
        """The states of a key that look like this, ascending; none: it never was so."""
        with self._lock:
            return [number for number, visible in self._visible[key].items() if visible == seen]

    def needed(self) -> Counter[str]:
        """How often each text came into the corpus, and so had to be embedded at most."""
        with self._lock:
            return self._needed.copy()

    def _chunks(self, text: str | None) -> set[str]:
        pieces: Iterable[str] = [] if text is None else [text]
        return {chunk.text for chunk in self._chunker.chunks(pieces, markdown=False)}
