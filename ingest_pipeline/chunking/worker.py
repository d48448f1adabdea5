"""The chunking process: a child process that cuts texts, because threads of one interpreter cut one after another.

It runs as a script and speaks the protocol of `sandbox.children`. Its introduction is the chunker and the encoding. It
loads what these need, then drops its rights, which it never needs again. A request names some documents, followed by
their bytes. A document that cannot be cut is None in the answer, and the parent process finds out why.
"""

import gc
import pickle
from io import BytesIO
from typing import Final, cast

from ingest_pipeline.chunking.content_defined import Chunker
from ingest_pipeline.chunking.cut_texts import CutText, WholeText, cut, to_bytes
from ingest_pipeline.sandbox.confinement import drop_rights
from ingest_pipeline.sandbox.exchange import Exchange, remove_files


def main() -> None:
    """Answer requests until the input ends."""
    exchange = Exchange()
    introduction = pickle.loads(exchange.introduction())  # noqa: S301  from the parent
    chunker, encoding = cast("tuple[Chunker, str | None]", introduction)
    for markdown in (False, True):
        chunker.splitter(markdown=markdown)  # reads the file of its tokenizer, if it has one
    # Nothing to warn of if this kernel cannot do it: without this process, the parent cuts with all of its rights.
    drop_rights([])
    gc.disable()  # cutting leaves no cycles of objects
    exchange.answer("ready")
    for head, data in exchange.requests():
        content = BytesIO(data)
        documents = [WholeText(key, content.read(size), has_blocks) for key, size, has_blocks in head["documents"]]
        exchange.answer("cut", data=to_bytes([_cut(chunker, document, encoding) for document in documents]))


def _cut(chunker: Chunker, document: WholeText, encoding: str | None) -> CutText | None:
    try:
        return cut(chunker, document, encoding)
    except Exception:  # noqa: BLE001  the parent process cuts the document again, which raises the error
        return None


IS_SCRIPT: Final = __name__ == "__main__"
if IS_SCRIPT:
    main()
    remove_files()
