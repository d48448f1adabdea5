"""The embedding server in bad weather. It remembers every purchase, to distinguish one too many from bad luck."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from random import Random

from tests.support.servers.embedding_server import EmbeddingServer, Fault
from tests.support.servers.embeddings_protocol import EmbeddingHandler, EmbeddingRequest, RequestRefusedError, Vectors
from tests.support.storm.contents import Contents
from tests.support.storm.disruptions import Disruptions
from tests.support.storm.figures import Figures

_WEATHER = [
    Fault.RATE_LIMITED,
    Fault.SERVER_ERROR,
    Fault.OVERLOADED,
    Fault.RESET,
    Fault.RESET_IN_BODY,
    Fault.TRUNCATED_JSON,
    Fault.REPLY_LOST,
    Fault.SHUFFLED,
]
_PAID_IN_VAIN = {Fault.RESET_IN_BODY, Fault.TRUNCATED_JSON, Fault.REPLY_LOST}
_LATENCY = 0.05
# How long after an answer its recording may be under way, on a machine with more to do than it can.
_RECORDING_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Purchase:
    """One request that was charged for."""

    began: float
    ended: float
    texts: Sequence[str]
    lost: bool
    """The answer never arrived."""


class StormyEmbeddings(EmbeddingServer):
    """Fails a share of the requests.

    Args:
        rate: The share, 0 to 1.
        random: Of this server alone.
        figures: What is counted.
    """

    def __init__(self, rate: float, random: Random, figures: Figures) -> None:
        super().__init__(latency=_LATENCY)
        self.rate = rate
        self._random, self._figures = random, figures
        self._here = threading.local()
        self._purchases: list[Purchase] = []

    @property
    def purchases(self) -> list[Purchase]:
        with self._state:
            return list(self._purchases)

    def encode(self, request: EmbeddingRequest) -> tuple[Vectors, list[int]]:
        answer = super().encode(request)
        now = time.monotonic()
        with self._state:
            self._purchases.append(Purchase(now - _LATENCY, now, request.texts, self._here.lost))
        return answer

    def _reply(self, connection: EmbeddingHandler, body: bytes, fault: Fault | None) -> None:
        with self._state:
            if fault is None and self._random.random() < self.rate:
                fault = self._random.choice(_WEATHER)
        self._here.lost = fault in _PAID_IN_VAIN
        if fault is not None:
            self._figures.count(f"embedding faults: {fault.name.lower().replace('_', ' ')}")
        try:
            super()._reply(connection, body, fault)
        except RequestRefusedError:
            super()._reply(connection, body, None)  # there is no answer to spoil


def judge_purchases(
    purchases: Sequence[Purchase], contents: Contents, disruptions: Disruptions, figures: Figures
) -> None:
    """Count texts embedded more often than they entered the corpus, by reason; without a reason it is a violation."""
    needed = contents.needed()
    by_text: defaultdict[str, list[Purchase]] = defaultdict(list)
    for purchase in purchases:
        for text in purchase.texts:
            by_text[text].append(purchase)
    figures.count("embeddings: embedded", sum(map(len, by_text.values())))
    figures.count("embeddings: distinct texts embedded", len(by_text))
    figures.count("embeddings: needed", needed.total())
    for text, embedded in by_text.items():
        again = sorted(embedded, key=lambda purchase: purchase.began)[max(needed[text], 1) - 1 :]
        for before, after in pairwise(again):
            reason = _reason(before, after, disruptions)
            figures.count(f"embeddings: embedded again, {reason or 'without a reason'}")
            if reason is None:
                began = figures.seconds - (time.monotonic() - before.began)
                figures.violation(
                    f"embedded at {began:.1f} s and again {after.began - before.ended:.1f} s later, with "
                    f"{len(before.texts)} and {len(after.texts)} texts in the request: {text[:60]!r}"
                )


def _reason(before: Purchase, after: Purchase, disruptions: Disruptions) -> str | None:
    if before.lost:
        return "answer lost"
    if after.began < before.ended + _RECORDING_SECONDS:
        return "two writers at once"
    if disruptions.touch(before.began, before.ended + _RECORDING_SECONDS):
        return "in flight at a disruption"
    return None
