"""From the PUT of an object to the first search that finds it, with `ingest-pipeline listen` and an emulator of AWS."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice

from benchmarks.data.texts import prose
from benchmarks.report import Report
from benchmarks.support.endpoint import DIMENSIONS, MODEL, ROOT, endpoint
from benchmarks.support.stage import stage
from ingest_pipeline.api import OpenCorpus, open_corpus
from ingest_pipeline.config.corpus_config import CorpusConfig
from ingest_pipeline.errors import ConfigurationError
from tests.support.servers.notices import NoticeQueue
from tests.support.servers.s3 import S3Server

_POLL_SECONDS = 0.05
_MAX_SECONDS = 600.0
_LATENCY_SECONDS = 0.05
_PARAGRAPHS = 20


def run(report: Report, step: Callable[[str], None], *, quick: bool) -> None:
    """Put files one by one, then as many at once; each has some 5 KB, and the endpoint waits 50 ms."""
    count = 10 if quick else 100
    with stage() as surroundings, endpoint(_LATENCY_SECONDS) as server, S3Server() as s3:
        environment = {
            **s3.env,
            "INGEST_SOURCE": s3.url("docs"),
            "INGEST_STATE": str(surroundings.folder / "state"),
            "INGEST_DATABASE_URL": surroundings.database(),
            "INGEST_CORPUS": "docs",
            "INGEST_EVENTS": NoticeQueue(s3, "docs/").address,
            "INGEST_EMBEDDING_MODEL": MODEL,
            "INGEST_EMBEDDING_DIMENSIONS": str(DIMENSIONS),
            "OPENAI_BASE_URL": server.base_url,
        }
        os.environ.update(environment)
        with _listening(environment), open_corpus(CorpusConfig.from_environment()) as corpus:
            step("events: the first file, which creates the corpus")
            _found(corpus, _put(s3, ["first.txt"]))
            step(f"events: {count} files, one by one")
            one_by_one: list[float] = []
            for number in range(count):
                time.sleep(random.random())  # noqa: S311  no secret
                one_by_one += _found(corpus, _put(s3, [f"one/{number}.txt"]))
            _add(report, "one by one", one_by_one)
            step(f"events: {count} files at once")
            _add(report, "at once", _found(corpus, _put(s3, [f"many/{number}.txt" for number in range(count)])))


@contextmanager
def _listening(environment: Mapping[str, str]) -> Generator[None]:
    command = [sys.executable, "-m", "ingest_pipeline.cli.main", "listen"]
    with subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert "Listening to" in process.stdout.readline()
        try:
            yield
        finally:
            process.terminate()
            process.communicate()


def _put(s3: S3Server, keys: Sequence[str]) -> dict[str, float]:
    """Put files; returns the times at which each PUT was answered."""
    times: dict[str, float] = {}
    for key in keys:
        s3.put(f"docs/{key}", "".join(islice(prose(key), _PARAGRAPHS)).encode())
        times[key] = time.monotonic()
    return times


def _found(corpus: OpenCorpus, put: Mapping[str, float]) -> list[float]:
    """Search until each file is found; returns the seconds since its PUT."""
    waiting, found = dict(put), list[float]()
    ends = time.monotonic() + _MAX_SECONDS
    while waiting:
        assert time.monotonic() < ends, waiting
        for key in [*waiting]:
            if not _is_found(corpus, key):
                break  # the others were put later
            found.append(time.monotonic() - waiting.pop(key))
        time.sleep(_POLL_SECONDS)
    return found


def _is_found(corpus: OpenCorpus, key: str) -> bool:
    try:
        return bool(corpus.search("anything", mode="vector", where=f"key={key}", limit=1))
    except ConfigurationError:
        return False  # there is no corpus yet


def _add(report: Report, put: str, seconds: list[float]) -> None:
    ordered = sorted(seconds)
    report.add(
        files_put=put,
        files=len(ordered),
        p50_s=round(ordered[len(ordered) // 2], 2),
        p99_s=round(ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))], 2),
        most_s=round(ordered[-1], 2),
        load=round(os.getloadavg()[0], 1),
    )
