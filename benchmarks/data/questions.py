"""Collections of documents with questions that do not quote them, for the benchmark of retrieval.

- **Python's documentation**: the first paragraph of a docstring asks for the entry of the same function in the library
  reference, which other people wrote in other words; and the headings of the FAQ, which are questions, ask for the text
  below them, from which they are removed.
- **Debian's policy**: an item of its upgrading checklist, which is not in the collection, asks for the section that it
  names.
- **Tables and e-mail**: made up. A record is in one row of one table, or in one letter of a thread. Several tables
  contain the same names, so that their columns decide.

No question shares a run of six words with its answer. The first two need Debian's packages ``python3.11-doc`` and
``debian-policy``; without a package, its collection is omitted.
"""

from __future__ import annotations

import gzip
import inspect
import os
import random
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from email.message import EmailMessage
from html import escape
from importlib import import_module
from pathlib import Path
from typing import Final

from ingest_pipeline.parsing.built_in_parsers import parse

DOCS: Final = Path(os.environ.get("BENCHMARK_DOCS", "/usr/share/doc"))
"""Where Debian's packages put documentation."""
_SEED: Final = 20261128
_RUN: Final = 6
_FEW: Final = 4
_LEAST_ANSWER: Final = 120

_ENTRY: Final = re.compile(
    r"^(?P<indent> *)\.\. (?:function|method|class|classmethod|staticmethod):: *(?P<name>[\w.]+)", re.MULTILINE
)
_MODULE: Final = re.compile(r"^\.\. (?:current)?module:: *(\S+)", re.MULTILINE)
_ANY_DIRECTIVE: Final = re.compile(
    r"^ *\.\. (?:function|method|class|classmethod|staticmethod|attribute|data|exception)::", re.MULTILINE
)
_FAQ: Final = re.compile(r"^(?P<title>[^\n]*\?[^\n]*)\n-{3,}\n", re.MULTILINE)
_SECTION: Final = re.compile(r"^#+ *\[?(?P<number>\d+(?:\.\d+)+)\.? ", re.MULTILINE)
_ITEM: Final = re.compile(r"^(?P<numbers>\d+(?:\.\d+)+[^\n]*)\n(?P<text>(?: {3}[^\n]*\n|\n)+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Question:
    """A question and where its answers are."""

    text: str
    answers: Sequence[tuple[int, int, int]]
    """Each a document's index, and the first and last offset in its text."""


@dataclass(slots=True)
class Collection:
    """Documents as their parsers return them, and questions about them."""

    name: str
    documents: list[str] = field(default_factory=list)
    markdown: list[bool] = field(default_factory=list)
    questions: list[Question] = field(default_factory=list)

    def add(self, text: str, *, markdown: bool) -> int:
        """Add a document. Returns its index."""
        self.documents.append(text)
        self.markdown.append(markdown)
        return len(self.documents) - 1

    def ask(self, text: str, *answers: tuple[int, int, int]) -> None:
        """Add a question, unless it quotes its answer or says too little."""
        text = " ".join(text.split())
        found = " ".join(self.documents[document][start:end] for document, start, end in answers)
        if len(text.split()) >= _FEW and answers and not _quotes(text, found):
            self.questions.append(Question(text, answers))


def collections(*, quick: bool) -> Iterator[Collection]:
    """The collections that can be made on this machine; with ``quick``, of fewer documents and questions."""
    for make in (_python, _faq, _policy, _structured, _as_markdown):
        collection = make(quick=quick)
        if collection.questions:
            yield collection


def _quotes(question: str, answer: str) -> bool:
    words = _words(question)
    found = f" {' '.join(_words(answer))} "
    size = min(_RUN, len(words))
    return any(f" {' '.join(words[at : at + size])} " in found for at in range(len(words) - size + 1))


def _parsed(name: str, data: bytes) -> str:
    return "".join(piece.text for piece in parse(name, [data]))


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _python(*, quick: bool) -> Collection:
    made = Collection("Python's documentation")
    sources = DOCS / "python3.11" / "html" / "_sources"
    entries: list[tuple[str, tuple[int, int, int]]] = []
    for path in sorted(sources.glob("library/*.txt"))[:: 4 if quick else 1]:
        text = path.read_text()
        document = made.add(text, markdown=False)
        entries += [(summary, (document, start, end)) for summary, start, end in _entries(text)]
    chosen = random.Random(_SEED)  # noqa: S311  repeatable, not secret
    chosen.shuffle(entries)
    for summary, answer in entries:
        if len(made.questions) < (100 if quick else 400):
            made.ask(summary, answer)
    _add_faq(made)
    return made


def _faq(*, quick: bool) -> Collection:  # noqa: ARG001  as the others
    """Few enough chunks for a sentence model on one core."""
    made = Collection("Python's FAQ alone")
    _add_faq(made)
    return made


def _add_faq(made: Collection) -> None:
    for path in sorted((DOCS / "python3.11" / "html" / "_sources").glob("faq/*.txt")):
        _ask_faq(made, path.read_text())


def _ask_faq(made: Collection, text: str) -> None:
    titles: list[tuple[str, int]] = []
    kept = ""
    at = 0
    for found in _FAQ.finditer(text):
        kept += text[at : found.start()]
        titles.append((found["title"], len(kept)))
        at = found.end()
    kept += text[at:]
    document = made.add(kept, markdown=False)
    ends = [*(start for _, start in titles[1:]), len(kept)][: len(titles)]
    for (title, start), end in zip(titles, ends, strict=True):
        if len(kept[start:end].strip()) >= _LEAST_ANSWER:
            made.ask(title, (document, start, end))


def _entries(text: str) -> Iterator[tuple[str, int, int]]:
    """Docstring summary, start and end of each documented function, class and method."""
    modules = [(found.start(), found[1]) for found in _MODULE.finditer(text)]
    for found in _ENTRY.finditer(text):
        module = next((name for at, name in reversed(modules) if at < found.start()), "builtins")
        summary = _summary(module, found["name"])
        end = _end_of_entry(text, found)
        if summary and end - found.start() >= _LEAST_ANSWER:
            yield summary, found.start(), end


def _end_of_entry(text: str, found: re.Match[str]) -> int:
    """Where the indented block of a directive ends, or the next entry in it begins."""
    end = text.find("\n", found.end()) + 1
    for line in text[end:].splitlines(keepends=True):
        if line.strip() and not line.startswith(found["indent"] + " "):
            break
        if _ANY_DIRECTIVE.match(line):
            break
        end += len(line)
    return end


def _summary(module: str, name: str) -> str:
    with suppress(ImportError, AttributeError):
        thing: object = import_module(module)
        for part in name.removeprefix(f"{module}.").split("."):
            thing = getattr(thing, part)
        doc = inspect.cleandoc(thing.__doc__ or "")
        paragraphs = [part for part in doc.split("\n\n") if not re.match(r"[\w.]+\(", part)]
        return paragraphs[0] if paragraphs else ""
    return ""


def _policy(*, quick: bool) -> Collection:
    made = Collection("Debian's policy")
    folder = DOCS / "debian-policy"
    sections: dict[str, tuple[int, int, int]] = {}
    for path in sorted((folder / "policy.html").glob("ch-*.html")):
        text = _parsed(path.name, path.read_bytes())
        document = made.add(text, markdown=True)
        starts = list(_SECTION.finditer(text))
        for found in starts:
            number = found["number"]
            later = (other.start() for other in starts if other.start() > found.start())
            end = next((at for at in later if not text[at:].lstrip("# [").startswith(f"{number}.")), len(text))
            sections.setdefault(number, (document, found.start(), end))
    checklist = folder / "upgrading-checklist.txt.gz"
    if checklist.exists():
        for found in _ITEM.finditer(gzip.decompress(checklist.read_bytes()).decode()):
            first = " ".join(found["text"].split("\n\n")[0].split())
            numbers = re.findall(r"\d+(?:\.\d+)+", found["numbers"])
            made.ask(first[:400], *(sections[number] for number in numbers if number in sections))
    if quick:
        del made.questions[60:]
    return made


_PEOPLE: Final = [
    "Ada",
    "Bela",
    "Cleo",
    "Dino",
    "Edda",
    "Finn",
    "Gwen",
    "Hugo",
    "Ines",
    "Jori",
    "Kaya",
    "Levi",
    "Mona",
    "Nico",
    "Olga",
    "Pius",
    "Runa",
    "Sven",
    "Tara",
    "Urs",
]
_FAMILIES: Final = [
    "Abel",
    "Brandt",
    "Castel",
    "Dorn",
    "Engel",
    "Farkas",
    "Grau",
    "Holm",
    "Ivers",
    "Jansen",
    "Keller",
    "Lund",
    "Moreau",
    "Novak",
    "Ostrow",
]
_BEGINNINGS: Final = [
    "Ald",
    "Bri",
    "Cor",
    "Dal",
    "Fen",
    "Gil",
    "Hol",
    "Jor",
    "Kel",
    "Lin",
    "Mar",
    "Nor",
    "Pel",
    "Quin",
    "Ros",
]
_ENDINGS: Final = ["amo", "evia", "ingra", "onda", "urix", "abel", "estre", "imar", "orva", "unda"]
_KINDS: Final = ["Freight", "Foods", "Optics", "Paper", "Pumps", "Shipping", "Steel", "Textiles", "Tools", "Water"]
_TOWNS: Final = [
    "Aarhus",
    "Bergen",
    "Bilbao",
    "Gdansk",
    "Ghent",
    "Graz",
    "Leeds",
    "Lyon",
    "Porto",
    "Tartu",
    "Turin",
    "Utrecht",
    "Varna",
    "Zagreb",
]
_TABLES: Final[dict[str, tuple[tuple[str, ...], str]]] = {
    "Supplier contracts": (
        ("Supplier", "Signed by", "Months to run", "Notice period", "Penalty per day"),
        "How long before the end must we tell {0} that we do not renew?|What do we owe {0} when a shipment is late?",
    ),
    "Open invoices": (
        ("Debtor", "Amount due", "Due date", "Reminders sent", "Account manager"),
        "By when does {0} have to pay us?|Who looks after the payments of {0}?",
    ),
    "Site visits": (
        ("Customer", "Town", "Engineer", "Machine serviced", "Hours worked"),
        "Which technician travelled to {0}?|What equipment was repaired at {0}?",
    ),
    "Quality complaints": (
        ("Complainant", "Defect found", "Batch", "Credit granted", "Closed on"),
        "What was wrong with the goods that {0} sent back?|How much money did {0} get for faulty goods?",
    ),
}


def _structured(*, quick: bool) -> Collection:
    """Tables of HTML pages as this package reads them, and letters."""
    return _records("tables and e-mail", quick=quick, named=True)


def _as_markdown(*, quick: bool) -> Collection:
    """The same with the tables as parsers usually return them: the names of the columns come once."""
    return _records("the same, tables as Markdown", quick=quick, named=False)


def _records(name: str, *, quick: bool, named: bool) -> Collection:
    made = Collection(name)
    chosen = random.Random(_SEED)  # noqa: S311  repeatable, not secret
    firms = [f"{first}{last} {chosen.choice(_KINDS)}" for first in _BEGINNINGS for last in _ENDINGS]
    for title, (names, asked) in _TABLES.items():
        rows = [(firm, *(_cell(chosen, name) for name in names[1:])) for firm in chosen.sample(firms, len(firms))]
        text = _parsed("page.html", _page(title, names, rows)) if named else _table(title, names, rows)
        document = made.add(text, markdown=True)
        for firm in chosen.sample(firms, 15 if quick else 40):
            found = re.search(rf"^.*\b{firm}\b.*$", text, re.MULTILINE)
            if found:
                made.ask(chosen.choice(asked.split("|")).format(firm), (document, found.start(), found.end()))
    _add_letters(made, chosen, firms)
    return made


def _table(title: str, names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = "\n".join(f"| {' | '.join(cells)} |" for cells in (names, ["---"] * len(names), *rows))
    return f"# {title}\n\n{lines}\n"


def _cell(chosen: random.Random, name: str) -> str:
    kind = name.rsplit(maxsplit=1)[-1].lower()
    if kind in {"by", "manager", "engineer"}:
        return f"{chosen.choice(_PEOPLE)} {chosen.choice(_FAMILIES)}"
    if kind in {"date", "on"}:
        return f"2026-{chosen.randint(1, 12):02}-{chosen.randint(1, 28):02}"
    if kind == "town":
        return chosen.choice(_TOWNS)
    if kind == "serviced":
        return chosen.choice(["boiler", "conveyor", "crane", "labeller", "mixer", "palletizer", "press"])
    if kind == "found":
        return chosen.choice(
            ["bent frame", "cracked lens", "leaking seal", "torn cover", "wrong colour", "rusty bolts"]
        )
    return f"{chosen.randint(2, 980)}" + {"period": " days", "day": " EUR", "due": " EUR", "granted": " EUR"}.get(
        kind, ""
    )


def _page(title: str, names: Sequence[str], rows: Sequence[Sequence[str]]) -> bytes:
    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    lines = "\n".join(line(row, "td") for row in rows)
    return f"<html><body><h1>{title}</h1><table>{line(names, 'th')}\n{lines}</table></body></html>".encode()


_TOPICS: Final = {
    "the crane at {0}": (
        "The gearbox of the hoist sheared on Monday; a spare ships from {1} within {2} days.",
        "When will the lifting gear of {0} work again?",
    ),
    "badge readers in {1}": (
        "Doors on floor {2} of {1} reject staff of {0} since the update; use the side entrance.",
        "Why can people from {0} not get into the office?",
    ),
    "summer party with {0}": (
        "We rented the boat house in {1} for {2} guests, so please tell me about allergies.",
        "Where do we celebrate together with {0}?",
    ),
    "price list of {0}": (
        "They raise everything by {2} per cent from October; {1} is the only exception.",
        "How much more expensive does {0} become?",
    ),
}


def _add_letters(made: Collection, chosen: random.Random, firms: Sequence[str]) -> None:
    asked: set[str] = set()
    for _ in range(20):
        thread: list[tuple[str, str]] = []
        for _ in range(6):
            subject, (body, question) = chosen.choice(list(_TOPICS.items()))
            firm, town, number = chosen.choice(firms), chosen.choice(_TOWNS), chosen.randint(3, 60)
            key = question.format(firm)
            if key not in asked:
                asked.add(key)
                thread.append((_letter(chosen, subject.format(firm, town), body.format(firm, town, number)), key))
        whole = "\n".join(text for text, _ in thread)
        document = made.add(whole, markdown=False)
        for text, question in thread:
            start = whole.index(text)
            made.ask(question, (document, start, start + len(text)))


def _letter(chosen: random.Random, subject: str, body: str) -> str:
    letter = EmailMessage()
    letter["From"] = f"{chosen.choice(_PEOPLE)} {chosen.choice(_FAMILIES)} <office@example.com>"
    letter["To"] = "all@example.com"
    letter["Subject"] = f"Re: {subject}"
    letter.set_content(f"Dear all,\n\nabout {subject}. {body}\n\nYours\n")
    return _parsed("letter.eml", letter.as_bytes())
