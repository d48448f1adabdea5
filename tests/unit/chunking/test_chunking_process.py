"""The chunking process: it cuts as the chunker itself does, and whatever it does not cut is left to its parent."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest_pipeline.chunking import worker_pool
from ingest_pipeline.chunking.content_defined import Chunker
from ingest_pipeline.chunking.cut_texts import CutText, WholeText, cut, from_bytes, to_bytes
from ingest_pipeline.chunking.model_input import ModelInput
from ingest_pipeline.chunking.tokenizer import Tokenizer
from ingest_pipeline.chunking.worker_pool import TextCutter
from ingest_pipeline.extensions.protocol import pack, unpack
from ingest_pipeline.processes import is_running
from tests.support.children import chunking_processes
from tests.support.world import paragraphs

CHUNKER = Chunker(200, 0)
PLAIN = WholeText("plain.txt", paragraphs("alpha", 4).encode(), has_blocks=False)
NOT_TEXT = WholeText("image.txt", b"\x89PNG\r\n", has_blocks=False)

words = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40)
texts = st.lists(st.one_of(words, st.sampled_from(["\n\n", "# Head\n", "## é ✓\n", "word " * 60, "```\n"]))).map(
    "".join
)


@pytest.fixture
def cutter() -> Iterator[TextCutter]:
    cutter = TextCutter(CHUNKER, None)
    cutter.start().join()
    assert cutter.is_ready
    yield cutter
    worker_pool.close()


def without_time(texts: list[CutText | None]) -> list[CutText | None]:
    return [text and replace(text, seconds=0.0, chunks=list(text.chunks)) for text in texts]


def own(chunker: Chunker, *documents: WholeText, encoding: str | None = None) -> list[CutText | None]:
    return without_time([cut(chunker, document, encoding) for document in documents])


def child_of(cutter: TextCutter) -> int:
    """The pid of the process that is kept for a cutter."""
    cutter.cut([])
    (child,) = chunking_processes()
    return child


@given(st.lists(texts, max_size=4), st.sampled_from([0, 40]), st.booleans(), st.booleans())
def test_chunks_survive_the_way_between_the_processes(
    contents: list[str], overlap: int, markdown: bool, headings: bool
) -> None:
    chunker = Chunker(200, overlap, model_input=ModelInput(heading_context=headings))
    key = "a.md" if markdown else "a.txt"
    documents = own(chunker, *(WholeText(key, content.encode(), has_blocks=True) for content in contents))
    assert without_time(from_bytes(to_bytes(documents), len(documents))) == documents


@pytest.mark.parametrize(
    ("chunker", "encoding"),
    [
        (Chunker(200, 40, model_input=ModelInput(heading_context=True)), None),
        (Chunker(60, 10, unit="tokens", model_input=ModelInput(Tokenizer.of("cl100k_base"), 512)), None),
        (Chunker(60, 0, unit="tokens", model_input=ModelInput(Tokenizer.of("wordllama-l2-256"))), "cp1252"),
    ],
    ids=["overlap and headings", "tokens of OpenAI", "tokens of a file, and an encoding"],
)
def test_it_cuts_as_the_chunker_does(chunker: Chunker, encoding: str | None) -> None:
    cutter = TextCutter(chunker, encoding)
    long = "\n\n".join(f"# Part {number}\n\n{paragraphs(f'p{number}', 20)}" for number in range(30))
    documents = [
        PLAIN,
        WholeText("long.md", long.encode(), has_blocks=True),
        WholeText("accents.txt", ("é ✓ 漢字. " * 200).encode(), has_blocks=False),
        WholeText("escaped.json", json.dumps({"text": "ü\n" * 500}).encode(), has_blocks=False),
        WholeText("lone.json", rb'{"text": "\ud800 word"}', has_blocks=False),
        WholeText("marked.txt", ("word " * 300).encode("utf-16"), has_blocks=False),
        WholeText("empty.txt", b"  \n", has_blocks=False),
    ]
    expected = own(chunker, *documents, encoding=encoding)
    assert without_time(list(cutter.cut(documents))) == expected
    assert expected[1] is not None
    assert expected[1].blocks is not None


def test_a_document_that_cannot_be_cut_is_left_to_the_parent(cutter: TextCutter) -> None:
    documents = [PLAIN, NOT_TEXT, WholeText("broken.txt", b"word \xff\xfe word", has_blocks=False), PLAIN]
    plain = own(CHUNKER, PLAIN)
    assert without_time(list(cutter.cut(documents))) == [*plain, None, None, *plain]
    assert cutter.is_ready


def test_a_process_that_was_killed_is_replaced(cutter: TextCutter) -> None:
    os.kill(child_of(cutter), signal.SIGKILL)
    assert without_time(list(cutter.cut([PLAIN]))) == own(CHUNKER, PLAIN)


@pytest.mark.parametrize(
    "answer",
    [
        "os._exit(3)",
        "print(json.dumps({'outcome': 'cut', 'detail': '', 'size': 3}), 'abc', sep='\\n', end='', flush=True)",
    ],
    ids=["dies", "answers with nonsense"],
)
def test_all_is_left_to_the_parent_if_the_process(
    answer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    script = tmp_path / "worker.py"
    script.write_text(
        "import json, os, sys\n"
        "sys.stdin.buffer.read(int(sys.stdin.buffer.readline()))\n"
        "print(json.dumps({'outcome': 'ready', 'detail': '', 'size': 0}), flush=True)\n"
        f"sys.stdin.buffer.readline()\n{answer}\n"
    )
    monkeypatch.setattr(worker_pool, "_SCRIPT", script)
    cutter = TextCutter(CHUNKER, None)
    assert list(cutter.cut([PLAIN, PLAIN])) == [None, None]
    assert "Documents are cut without it" in caplog.text


def test_a_process_that_does_not_start_is_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_pool, "_SCRIPT", Path("/nowhere/worker.py"))
    cutter = TextCutter(CHUNKER, None)
    cutter.start().join()
    assert not cutter.is_ready


def test_it_ends_with_a_parent_that_was_killed() -> None:
    program = """
import time
from tests.unit.chunking.test_chunking_process import CHUNKER, TextCutter, chunking_processes
cutter = TextCutter(CHUNKER, None)
cutter.start().join()
print(*chunking_processes(), flush=True)
time.sleep(600)
"""
    root = Path(__file__).parents[3]
    command, environment = [sys.executable, "-c", program], os.environ | {"PYTHONPATH": str(root)}
    with subprocess.Popen(command, cwd=root, env=environment, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        try:
            child = int(parent.stdout.readline())
            assert is_running(child)
        finally:
            parent.kill()
    ends = time.monotonic() + 60
    while is_running(child):
        assert time.monotonic() < ends
        time.sleep(0.01)


@pytest.mark.promise("confinement")
def test_it_has_neither_secrets_nor_rights(cutter: TextCutter) -> None:
    child = Path(f"/proc/{child_of(cutter)}")
    assert b"PATH=" in (child / "environ").read_bytes()
    assert b"INGEST_" not in (child / "environ").read_bytes()
    assert "NoNewPrivs:\t1" in (child / "status").read_text()


def damaged(part: int, value: object) -> bytes:
    """The bytes of a document that was cut, with one of its parts replaced."""
    text, (document,) = unpack(to_bytes([cut(CHUNKER, PLAIN, None)]))
    document[part] = value
    return pack(text, document)


def spans() -> list[int]:
    """The spans in the bytes of that document."""
    _, ((_, found, *_),) = unpack(to_bytes([cut(CHUNKER, PLAIN, None)]))
    return found


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 20,
        pack("text", None),
        pack("", None, None),
        damaged(0, 10),
        damaged(0, "many"),
        damaged(1, spans()[:-1]),
        damaged(1, spans()[3:]),
        damaged(1, [*spans(), *spans()]),
        damaged(1, [-1, *spans()[1:]]),
        damaged(1, [*spans()[:2], 7, *spans()[3:]]),
        damaged(1, [0.5, *spans()[1:]]),
        damaged(2, [[[1], None]]),
        damaged(2, [[[], 2]]),
        damaged(3, "no base64!"),
        damaged(4, "soon"),
    ],
)
def test_invalid_bytes_are_refused(data: bytes) -> None:
    with pytest.raises((ValueError, TypeError)):
        from_bytes(data, 1)
