"""Writes small documents of every format. Each is about one subject, so that a search can find it."""

import json
from collections.abc import Mapping
from html import escape
from io import BytesIO
from pathlib import Path
from pydoc_data.topics import topics
from typing import Final
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo

SAGAS: Final = [
    "Sagas and compensating transactions",
    "A saga is a long transaction cut into a sequence of short ones, each with a transaction that undoes it.",
    "If a step fails, the compensating transactions of the steps before it run in reverse order.",
    "Hector Garcia-Molina and Kenneth Salem described sagas in 1987, for work that would hold locks for hours.",
]
OBJECT_STORES: Final = [
    "Object stores and entity tags",
    "An object store keeps whole objects under keys in a bucket; there are no folders and no partial writes.",
    "Every object carries an entity tag, or ETag, which changes when the content of the object changes.",
    "A conditional request with If-Match reads an object only while it is still the one that was listed.",
]
VECTOR_SEARCH: Final = [
    "Nearest-neighbour search over vectors",
    "An embedding model maps a passage of text to a vector, so that similar meanings lie close together.",
    "An inverted file index groups vectors around centroids and scans only the groups nearest to the query.",
    "Recall is the share of the true nearest neighbours that an approximate index returns.",
]
COLUMN_FORMATS: Final = [
    "Columnar file formats",
    "A columnar file stores the values of one column together, which compresses well and scans fast.",
    "Lance adds random access: one row of a million is read without decoding a whole row group.",
    "Every commit makes a new version of the table, and older versions stay readable until they are cleaned up.",
]
ROW_LOCKS: Final = [
    "Row locks in Postgres",
    "SELECT FOR UPDATE locks the rows it returns until the transaction ends.",
    "The server releases the lock when the connection of its holder dies, so that no lock outlives its owner.",
    "Readers are never blocked by a row lock: they see the version that was committed when their query began.",
]
CHOCOLATE: Final = [
    "Tempering dark chocolate",
    "Melt the chocolate to fifty degrees, cool it to twenty-eight while stirring, then warm it to thirty-two.",
    "Tempered chocolate snaps, shines and shrinks from the mould, because its cocoa butter has one crystal form.",
    "A white bloom on old chocolate is cocoa butter that melted and set again on the surface.",
]
TIDES: Final[list[Mapping[str, str]]] = [
    {"harbour": "Saint-Malo", "range_m": "12.2", "note": "one of the largest tidal ranges in Europe"},
    {"harbour": "Burntcoat Head", "range_m": "16.3", "note": "the Bay of Fundy resonates with the ocean tide"},
    {"harbour": "Gibraltar", "range_m": "0.9", "note": "the Mediterranean is nearly closed and has hardly any tide"},
]
METEORITES: Final[list[Mapping[str, str]]] = [
    {"name": "Hoba", "country": "Namibia", "text": "The heaviest known meteorite, sixty tonnes of iron and nickel."},
    {"name": "Allende", "country": "Mexico", "text": "A carbonaceous chondrite with grains older than the Earth."},
    {"name": "Chelyabinsk", "country": "Russia", "text": "It exploded in the air and broke windows in six towns."},
]

_XML: Final = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>'
_OFFICE: Final = "http://schemas.openxmlformats.org"
_CONTENT: Final = "application/vnd.openxmlformats-officedocument"
_FIRST_ZIP_DATE: Final = (1980, 1, 1, 0, 0, 0)


def write_samples(directory: Path) -> list[Path]:
    """Write one small document per format: PDF, DOCX, PPTX, XLSX, EPUB, HTML, Markdown, CSV and JSONL.

    The bytes are the same on every call, so that a second ingest finds no change.

    Args:
        directory: The folder to write to, which is created if it does not exist.

    Returns:
        The files, sorted.
    """
    contents = {
        "chocolate.md": _markdown(CHOCOLATE).encode(),
        "column-formats.epub": _epub(COLUMN_FORMATS),
        "meteorites.jsonl": "".join(json.dumps(row) + "\n" for row in METEORITES).encode(),
        "object-stores.docx": _docx(OBJECT_STORES),
        "row-locks.html": _html(ROW_LOCKS).encode(),
        "sagas.pdf": _pdf(SAGAS),
        "tides.csv": _csv(TIDES).encode(),
        "tides.xlsx": _xlsx(TIDES),
        "vector-search.pptx": _pptx(VECTOR_SEARCH),
    }
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (directory / name).write_bytes(content)
    return sorted(directory / name for name in contents)


def write_python_topics(directory: Path) -> list[Path]:
    """Write the language reference of the running Python's ``help()``, one ``.txt`` file for each topic.

    Args:
        directory: The folder to write to, which is created if it does not exist.

    Returns:
        The files, sorted.
    """
    directory.mkdir(parents=True, exist_ok=True)
    files = {directory / f"{name}.txt": text for name, text in topics.items()}
    for path, text in files.items():
        path.write_text(text, encoding="utf-8")
    return sorted(files)


def _markdown(lines: list[str]) -> str:
    return f"# {lines[0]}\n\n" + "\n\n".join(lines[1:]) + "\n"


def _csv(rows: list[Mapping[str, str]]) -> str:
    return "".join(",".join(f'"{cell}"' for cell in cells) + "\n" for cells in _grid(rows))


def _grid(rows: list[Mapping[str, str]]) -> list[list[str]]:
    return [list(rows[0]), *(list(row.values()) for row in rows)]


def _html(lines: list[str]) -> str:
    body = f"<h1>{escape(lines[0])}</h1>" + "".join(f"<p>{escape(line)}</p>" for line in lines[1:])
    return f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"></head><body>{body}</body></html>\n'


def _pdf(lines: list[str]) -> bytes:
    """A PDF file with one page. Its cross-reference table has the byte offset of each object (ISO 32000-1, 7.5)."""
    shown = "".join(f"({line}) Tj 0 -20 Td\n" for line in lines)
    stream = f"BT /F1 10 Tf 50 780 Td\n{shown}ET".encode("latin-1")
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 4 0 R /Resources <</Font <</F1 5 0 R>>>> >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
    ]
    out = bytearray(b"%PDF-1.4\n")
    offsets: list[int] = []
    for number, body in enumerate(objects, 1):
        offsets.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    entries = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    count, table = len(objects) + 1, len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n%s" % (count, entries)
    out += b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (count, table)
    return bytes(out)


def _zip(members: Mapping[str, str], *, stored: frozenset[str] = frozenset()) -> bytes:
    buffer = BytesIO()
    with ZipFile(buffer, "w") as archive:
        for name, text in members.items():
            method = ZIP_STORED if name in stored else ZIP_DEFLATED
            archive.writestr(ZipInfo(name, _FIRST_ZIP_DATE), text, compress_type=method)
    return buffer.getvalue()


def _relationships(targets: Mapping[str, str]) -> str:
    each = "".join(
        f'<Relationship Id="rId{number}" Type="{_OFFICE}/officeDocument/2006/relationships/{kind}" Target="{target}"/>'
        for number, (target, kind) in enumerate(targets.items(), 1)
    )
    return f'{_XML}<Relationships xmlns="{_OFFICE}/package/2006/relationships">{each}</Relationships>'


def _office(main: str, content_types: Mapping[str, str], parts: Mapping[str, str]) -> bytes:
    """An Office Open XML package (ECMA-376, part 2): content types, the relationship to the main part, and parts."""
    overrides = "".join(
        f'<Override PartName="/{part}" ContentType="{_CONTENT}.{kind}+xml"/>' for part, kind in content_types.items()
    )
    defaults = (
        '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
        '<Default Extension="xml" ContentType="application/xml"/>'
    )
    types = f'{_XML}<Types xmlns="{_OFFICE}/package/2006/content-types">{defaults}{overrides}</Types>'
    return _zip({"[Content_Types].xml": types, "_rels/.rels": _relationships({main: "officeDocument"}), **parts})


def _docx(lines: list[str]) -> bytes:
    def paragraph(text: str, style: str = "") -> str:
        return f"<w:p>{style}<w:r><w:t>{escape(text)}</w:t></w:r></w:p>"

    heading = paragraph(lines[0], '<w:pPr><w:pStyle w:val="Heading1"/></w:pPr>')
    body = heading + "".join(paragraph(line) for line in lines[1:])
    namespace = f"{_OFFICE}/wordprocessingml/2006/main"
    document = f'{_XML}<w:document xmlns:w="{namespace}"><w:body>{body}</w:body></w:document>'
    main = "word/document.xml"
    return _office(main, {main: "wordprocessingml.document.main"}, {main: document})


def _slide(text: str) -> str:
    return (
        f'{_XML}<p:sld xmlns:p="{_OFFICE}/presentationml/2006/main" xmlns:a="{_OFFICE}/drawingml/2006/main">'
        '<p:cSld><p:spTree><p:nvGrpSpPr><p:cNvPr id="1" name=""/><p:cNvGrpSpPr/><p:nvPr/></p:nvGrpSpPr><p:grpSpPr/>'
        '<p:sp><p:nvSpPr><p:cNvPr id="2" name="Text"/><p:cNvSpPr/><p:nvPr/></p:nvSpPr><p:spPr/><p:txBody><a:bodyPr/>'
        f"<a:p><a:r><a:t>{escape(text)}</a:t></a:r></a:p></p:txBody></p:sp></p:spTree></p:cSld></p:sld>"
    )


def _pptx(lines: list[str]) -> bytes:
    slides = {f"slides/slide{number}.xml": _slide(line) for number, line in enumerate(lines, 1)}
    listed = "".join(f'<p:sldId id="{255 + number}" r:id="rId{number}"/>' for number in range(1, len(slides) + 1))
    presentation = (
        f'{_XML}<p:presentation xmlns:p="{_OFFICE}/presentationml/2006/main"'
        f' xmlns:r="{_OFFICE}/officeDocument/2006/relationships"><p:sldIdLst>{listed}</p:sldIdLst></p:presentation>'
    )
    main = "ppt/presentation.xml"
    kinds = {main: "presentationml.presentation.main"} | {f"ppt/{name}": "presentationml.slide" for name in slides}
    parts = {main: presentation, "ppt/_rels/presentation.xml.rels": _relationships(dict.fromkeys(slides, "slide"))}
    return _office(main, kinds, parts | {f"ppt/{name}": text for name, text in slides.items()})


def _xlsx(rows: list[Mapping[str, str]]) -> bytes:
    def line(number: int, cells: list[str]) -> str:
        each = "".join(f'<c t="inlineStr"><is><t>{escape(cell)}</t></is></c>' for cell in cells)
        return f'<row r="{number}">{each}</row>'

    namespace = f"{_OFFICE}/spreadsheetml/2006/main"
    data = "".join(line(number, cells) for number, cells in enumerate(_grid(rows), 1))
    sheet = f'{_XML}<worksheet xmlns="{namespace}"><sheetData>{data}</sheetData></worksheet>'
    workbook = (
        f'{_XML}<workbook xmlns="{namespace}" xmlns:r="{_OFFICE}/officeDocument/2006/relationships">'
        '<sheets><sheet name="Tides" sheetId="1" r:id="rId1"/></sheets></workbook>'
    )
    main, only = "xl/workbook.xml", "worksheets/sheet1.xml"
    kinds = {main: "spreadsheetml.sheet.main", f"xl/{only}": "spreadsheetml.worksheet"}
    relations = _relationships({only: "worksheet"})
    return _office(main, kinds, {main: workbook, "xl/_rels/workbook.xml.rels": relations, f"xl/{only}": sheet})


def _epub(lines: list[str]) -> bytes:
    """An EPUB 3 container: the uncompressed media type, the location of the package, the package, and one chapter."""
    container = (
        f'{_XML}<container version="1.0" xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
        '<rootfile full-path="content.opf" media-type="application/oebps-package+xml"/></rootfiles></container>'
    )
    package = (
        f'{_XML}<package xmlns="http://www.idpf.org/2007/opf" version="3.0" unique-identifier="id">'
        '<metadata xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:identifier id="id">sample</dc:identifier>'
        f"<dc:title>{escape(lines[0])}</dc:title><dc:language>en</dc:language></metadata>"
        '<manifest><item id="c" href="chapter.xhtml" media-type="application/xhtml+xml"/></manifest>'
        '<spine><itemref idref="c"/></spine></package>'
    )
    body = f"<h1>{escape(lines[0])}</h1>" + "".join(f"<p>{escape(line)}</p>" for line in lines[1:])
    chapter = (
        f'{_XML}<html xmlns="http://www.w3.org/1999/xhtml"><head><title>{escape(lines[0])}</title></head>'
        f"<body>{body}</body></html>"
    )
    members = {
        "mimetype": "application/epub+zip",
        "META-INF/container.xml": container,
        "content.opf": package,
        "chapter.xhtml": chapter,
    }
    return _zip(members, stored=frozenset({"mimetype"}))
