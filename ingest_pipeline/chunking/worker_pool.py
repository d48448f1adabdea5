"""Cuts texts in the chunking process: the parent's side of ``worker``."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from ingest_pipeline.chunking.content_defined import Chunker
from ingest_pipeline.chunking.cut_texts import CutText, WholeText, from_bytes
from ingest_pipeline.errors import ConfigurationError
from ingest_pipeline.sandbox.children import ChildPool, DeadChildError, Program, RequestLimits
from ingest_pipeline.telemetry.logs import get_logger

_SCRIPT: Final = Path(__file__).with_name("worker.py")
_MEMORY_BYTES: Final = 2 << 30
_LIMITS: Final = RequestLimits(cpu_seconds=60, wall_seconds=120.0, output_bytes=256 << 20)

_children: Final = ChildPool()
log = get_logger(__name__)


class TextCutter:
    """Cuts texts with the built-in chunker in a chunking process, which is kept for later cutters with equal settings.

    It only saves time: the caller itself cuts what the chunking process does not cut.

    Args:
        chunker: The chunker.
        encoding: The encoding of text that is neither UTF-8 nor marked.
    """

    def __init__(self, chunker: Chunker, encoding: str | None) -> None:
        described = pickle.dumps((chunker, encoding))
        self._program = Program(
            "chunking process",
            _SCRIPT,
            frozenset({"cut"}),
            _MEMORY_BYTES,
            f"{len(described)}\n".encode() + described,
            is_replaced=False,
        )
        self._asking = threading.Lock()
        self.is_ready = False
        """Whether the chunking process has started and answers. Starting takes some tenths of a second."""

    def start(self) -> threading.Thread:
        """Start the chunking process in a thread, which ends when the process is ready or has failed to start."""
        thread = threading.Thread(target=self._start, name="start of the chunking process", daemon=True)
        thread.start()
        return thread

    def _start(self) -> None:
        self.is_ready = self._ask([]) is not None

    def cut(self, documents: Sequence[WholeText]) -> Sequence[CutText | None]:
        """Cut some documents, one call after another.

        Returns:
            The documents in their order. None: the caller has to cut this one.
        """
        found = self._ask(documents)
        if found is None:
            self.is_ready = False
            return [None] * len(documents)
        return found

    def _ask(self, documents: Sequence[WholeText]) -> Sequence[CutText | None] | None:
        """The answer of the chunking process. None: there is none."""
        head = {"documents": [(one.key, len(one.content), one.has_blocks) for one in documents]}
        content = b"".join(one.content for one in documents)
        try:
            # One at a time, because one process cuts faster than its parent can use the chunks.
            with self._asking:
                answer = _children.ask(self._program, head, content, _LIMITS)
            return from_bytes(answer.data, len(documents))
        except DeadChildError as death:
            log.warning("The chunking process ended (%s). Documents are cut without it", death.how)
        except (ConfigurationError, ValueError, TypeError) as error:
            log.warning("The chunking process failed (%s). Documents are cut without it", error)
        return None


def close() -> None:
    """End the chunking processes that wait for a request."""
    _children.close()
