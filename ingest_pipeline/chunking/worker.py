"""The chunking process: a child process that cuts texts, because threads of one interpreter cut one after another.

It runs as a script and speaks the protocol of `sandbox.children`. Its introduction is the chunker and the encoding. It
loads what these need, then drops its rights, which it never needs again. A request names some documents, followed by
their bytes. A document that cannot be cut is None in the answer, and the parent process finds out why.
"""

import gc
import json
import os
import pickle
import shutil
import sys
from typing import Any, BinaryIO, Final, cast

from ingest_pipeline.chunking.content_defined import Chunker
from ingest_pipeline.chunking.cut_texts import CutText, WholeText, cut, to_bytes
from ingest_pipeline.sandbox.confinement import drop_rights


def main() -> None:
    """Answer requests until the input ends."""
    # What a library prints must not get into the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    requests = sys.stdin.buffer
    introduction = pickle.loads(requests.read(int(requests.readline())))  # noqa: S301  from the parent
    chunker, encoding = cast("tuple[Chunker, str | None]", introduction)
    for markdown in (False, True):
        chunker.splitter(markdown=markdown)  # reads the file of its tokenizer, if it has one
    # Nothing to warn of if this kernel cannot do it: without this process, the parent cuts with all of its rights.
    drop_rights([])
    gc.disable()  # cutting leaves no cycles of objects
    _answer(answers, "ready")
    while line := requests.readline():
        head: dict[str, Any] = json.loads(line)
        documents = [WholeText(key, requests.read(size), has_blocks) for key, size, has_blocks in head["documents"]]
        if sum(len(document.content) for document in documents) < head["size"]:
            return
        texts = [_cut(chunker, document, encoding) for document in documents]
        _answer(answers, "cut", to_bytes(texts))


def _cut(chunker: Chunker, document: WholeText, encoding: str | None) -> CutText | None:
    try:
        return cut(chunker, document, encoding)
    except Exception:  # noqa: BLE001  the parent process cuts the document again, which raises the error
        return None


def _answer(answers: BinaryIO, outcome: str, data: bytes = b"") -> None:
    answers.write(json.dumps({"outcome": outcome, "detail": "", "size": len(data)}).encode() + b"\n")
    answers.write(data)
    answers.flush()


IS_SCRIPT: Final = __name__ == "__main__"
if IS_SCRIPT:
    main()
    # What the document left. The folder itself goes with the parent process, see `sandbox.folders`.
    shutil.rmtree(os.environ["HOME"], ignore_errors=True)
