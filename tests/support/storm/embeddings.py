"""An embedding server that fails at random, and records every billed request, to find avoidable ones."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from random import Random

from tests.support.servers.embedding_server import EmbeddingServer, Fault
from tests.support.servers.embeddings_protocol import EmbeddingHandler, EmbeddingRequest, RequestRefusedError, Vectors
from tests.support.storm.contents import QUESTION, Contents
from tests.support.storm.disruptions import Disruptions
from tests.support.storm.figures import Figures

_RANDOM_FAULTS = [
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
# How long after an answer its recording may still be in progress, on an overloaded machine.
_RECORDING_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class BilledRequest:
    """One billed request."""

    began: float
    ended: float
    texts: Sequence[str]
    lost: bool
    """Whether the answer never arrived."""


class StormyEmbeddings(EmbeddingServer):
    """An embedding server that fails a share of the requests.

    Args:
        rate: The share, 0 to 1.
        random: Generator of this server's choices.
        figures: Counters of the storm.
    """

    def __init__(self, rate: float, random: Random, figures: Figures) -> None:
        super().__init__(latency=_LATENCY)
        self.rate = rate
        self._random, self._figures = random, figures
        self._here = threading.local()
        self._billed: list[BilledRequest] = []

    @property
    def billed(self) -> list[BilledRequest]:
        with self._state:
            return list(self._billed)

    def encode(self, request: EmbeddingRequest) -> tuple[Vectors, list[int]]:
        answer = super().encode(request)
        now = time.monotonic()
        with self._state:
            self._billed.append(BilledRequest(now - _LATENCY, now, request.texts, self._here.lost))
        return answer

    def _reply(self, connection: EmbeddingHandler, body: bytes, fault: Fault | None) -> None:
        with self._state:
            if fault is None and self._random.random() < self.rate:
                fault = self._random.choice(_RANDOM_FAULTS)
        self._here.lost = fault in _PAID_IN_VAIN
        if fault is not None:
            self._figures.count(f"embedding faults: {fault.name.lower().replace('_', ' ')}")
        try:
            super()._reply(connection, body, fault)
        except RequestRefusedError:
            super()._reply(connection, body, None)  # there is no answer to spoil


def judge_billing(
    billed: Sequence[BilledRequest],
    contents: Contents,
    disruptions: Disruptions,
    figures: Figures,
    forgotten: Callable[[str, float, float], bool] = lambda _text, _began, _ended: False,
) -> None:
    """Count texts that were embedded more often than they entered the corpus, by reason. No reason: a violation.

    Args:
        billed: The billed requests.
        contents: The contents of the source.
        disruptions: What was disrupted.
        figures: Counters of the storm.
        forgotten: Whether an erasure deleted the vector of a text between two moments.
    """
    needed = contents.needed()
    by_text: defaultdict[str, list[BilledRequest]] = defaultdict(list)
    for request in billed:
        for text in request.texts:
            if not text.startswith(QUESTION):  # each run of a corpus with gates embeds the questions
                by_text[text].append(request)
    figures.count("embeddings: embedded", sum(map(len, by_text.values())))
    figures.count("embeddings: distinct texts embedded", len(by_text))
    figures.count("embeddings: needed", needed.total())
    for text, embedded in by_text.items():
        again = sorted(embedded, key=lambda request: request.began)[max(needed[text], 1) - 1 :]
        for before, after in pairwise(again):
            reason = _reason(before, after, disruptions)
            if reason is None and forgotten(text, before.began, after.ended):
                reason = "forgotten by an erasure"
            figures.count(f"embeddings: embedded again, {reason or 'without a reason'}")
            if reason is None:
                began = figures.seconds - (time.monotonic() - before.began)
                figures.violation(
                    f"embedded at {began:.1f} s and again {after.began - before.ended:.1f} s later, with "
                    f"{len(before.texts)} and {len(after.texts)} texts in the request: {text[:60]!r}"
                )


def _reason(before: BilledRequest, after: BilledRequest, disruptions: Disruptions) -> str | None:
    if before.lost:
        return "answer lost"
    if after.began < before.ended + _RECORDING_SECONDS:
        return "two writers at once"
    if disruptions.touch(before.began, before.ended + _RECORDING_SECONDS):
        return "in flight at a disruption"
    return None
