"""A chunker for Python sources."""

import ast
from collections.abc import Iterator

from ingest_pipeline import ExtractedDocument, Span


class PythonChunker:
    """Cuts Python at its functions and classes. What does not parse is cut at lines."""

    fingerprint = "python-1"

    def chunks(self, document: ExtractedDocument) -> Iterator[Span]:
        """Cut one file. A definition that is longer than a chunk may be is cut at its lines."""
        lines = document.text.splitlines(keepends=True)
        starts = [0]
        for line in lines:
            starts.append(starts[-1] + len(line))
        for first, last, heading in sections(document.text, len(lines)):
            start = starts[first]
            for line in range(first, last):
                end = starts[line + 1]
                while end - start > document.size:  # also a line may be too long
                    cut = starts[line] if start < starts[line] else start + document.size
                    yield Span(start, cut, heading)
                    start = cut
            if start < starts[last]:
                yield Span(start, starts[last], heading)


def sections(text: str, lines: int) -> Iterator[tuple[int, int, tuple[str, ...]]]:
    """The first line, the line after the last one, and the heading of each part of the file."""
    try:
        body = ast.parse(text).body
    except (SyntaxError, ValueError):
        yield 0, lines, ()
        return
    end = 0
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and node.end_lineno is not None:
            start = min([node.lineno, *(one.lineno for one in node.decorator_list)]) - 1
            if end < start:
                yield end, start, ()
            if start >= end:
                yield start, node.end_lineno, (node.name,)
                end = node.end_lineno
    if end < lines:
        yield end, lines, ()
