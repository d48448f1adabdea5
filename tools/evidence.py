"""Which tests prove a promise of GUARANTEES.md.

A test names its promises in a marker, ``@pytest.mark.promise("zombies")``, and so may a file in its ``pytestmark``. The
names are those at which the links of GUARANTEES.md lead.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
_PROMISE = re.compile(r"\[([a-z0-9-]+)\]\(docs/evidence\.md#\1\)")


@dataclass(frozen=True)
class Proof:
    """A test, or a whole file of tests, that proves a promise."""

    promise: str
    file: str
    test: str | None
    is_long: bool


def promises() -> list[tuple[str, str]]:
    """The names of the promises of GUARANTEES.md, and the headings above them, in its order."""
    found: list[tuple[str, str]] = []
    heading = ""
    for line in (ROOT / "GUARANTEES.md").read_text().splitlines():
        heading = line.removeprefix("## ") if line.startswith("## ") else heading
        found += [(name, heading) for name in _PROMISE.findall(line)]
    return found


def proofs() -> list[Proof]:
    """What the markers of all tests say."""
    return [proof for path in sorted((ROOT / "tests").rglob("test_*.py")) for proof in _proofs_of(path)]


def table(_: str) -> str:
    """The tests of each promise, below the headings of GUARANTEES.md."""
    by_promise: dict[str, list[Proof]] = {}
    for proof in proofs():
        by_promise.setdefault(proof.promise, []).append(proof)
    lines: list[str] = []
    above = ""
    for name, heading in promises():
        if heading != above:
            lines += ["", f"## {heading}", "", "| promise | tests |", "|---|---|"]
            above = heading
        lines.append(f'| <a id="{name}"></a>{name} | {"<br>".join(_files(by_promise.get(name, [])))} |')
    return "\n".join(lines).strip()


def _files(found: Sequence[Proof]) -> Iterator[str]:
    for file in dict.fromkeys(proof.file for proof in found):
        tests = [
            f"{f'`{proof.test}`' if proof.test else 'all tests'}{' (soak)' if proof.is_long else ''}"
            for proof in found
            if proof.file == file
        ]
        yield f"`{file}`: {', '.join(tests)}"


def _proofs_of(path: Path) -> Iterator[Proof]:
    file = str(path.relative_to(ROOT / "tests"))
    of_the_file: list[ast.expr] = []
    for statement in ast.parse(path.read_text()).body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "pytestmark":
            of_the_file = statement.value.elts if isinstance(statement.value, ast.List) else [statement.value]
            yield from (Proof(name, file, None, _is_long(of_the_file)) for name in _names(of_the_file))
        elif isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
            is_long = _is_long([*of_the_file, *statement.decorator_list])
            yield from (Proof(name, file, statement.name, is_long) for name in _names(statement.decorator_list))


def _is_long(marks: Sequence[ast.expr]) -> bool:
    return any(ast.unparse(mark).startswith("pytest.mark.soak") for mark in marks)


def _names(marks: Sequence[ast.expr]) -> list[str]:
    return [
        argument.value
        for mark in marks
        if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.promise"
        for argument in mark.args
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
    ]
