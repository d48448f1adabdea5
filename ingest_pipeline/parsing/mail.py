"""Reads an e-mail: its subject, sender, recipients, date and body, and the messages that were forwarded in it.

Runs in the parser's child process, because the document may be hostile.
"""

import re
from collections.abc import Callable, Iterator
from email import policy
from email.message import EmailMessage
from email.parser import BytesParser
from typing import Final, cast

_HEADER_FIELDS: Final = ("From", "To", "Cc", "Date")
_MAX_DEPTH: Final = 10
"""Depth to which messages inside messages are read."""
_LEADING_HASH: Final = re.compile(r"^(?=#)", re.MULTILINE)
# The parser of the standard library raises any of these for headers that break the rules.
_BROKEN: Final = (AttributeError, LookupError, RecursionError, TypeError, ValueError)


class BrokenMailError(Exception):
    """The document cannot be read as an e-mail."""


def mail_text(data: bytes, html_text: Callable[[str], str]) -> str:
    """An e-mail as Markdown: the subject is its heading. Attachments are named and not read.

    Args:
        data: The message, as in an ``.eml`` file.
        html_text: Converts a page to Markdown, for bodies that exist as HTML only.

    Raises:
        BrokenMailError: It has no header, or its structure is damaged.
    """
    try:
        message = BytesParser(policy=policy.default).parsebytes(data)
        if not message.keys():
            raise BrokenMailError("has no header of an e-mail")
        return "\n\n".join(_parts(message, html_text, 1))
    except _BROKEN as error:
        raise BrokenMailError(f"is a damaged e-mail: {error}") from None


def _parts(message: EmailMessage, html_text: Callable[[str], str], level: int) -> Iterator[str]:
    subject = " ".join(str(message.get("Subject", "")).split())
    yield f"{'#' * min(level, 6)} {subject or 'No subject'}"
    header = [f"{name}: {' '.join(str(message[name]).split())}" for name in _HEADER_FIELDS if message[name]]
    attached = list(message.iter_attachments())
    names = [name for part in attached if (name := part.get_filename())]
    if names:
        header.append(f"Attachments, not read: {', '.join(names)}")
    if header:
        yield "\n".join(header)
    body = message.get_body(("plain", "html"))
    if body is not None:
        content = str(cast("EmailMessage", body).get_content()).replace("\r\n", "\n").strip()
        html = body.get_content_subtype() == "html"
        yield html_text(content) if html else _LEADING_HASH.sub(r"\\", content)
    for part in attached:
        if part.get_content_type() == "message/rfc822" and level < _MAX_DEPTH:
            yield from _parts(cast("EmailMessage", part.get_content()), html_text, level + 1)
