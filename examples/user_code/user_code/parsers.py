"""A parser for e-mail."""

from email import message_from_bytes, policy
from email.utils import parsedate_to_datetime

from ingest_pipeline import ParsedDocument, RawDocument, TextPiece


class EmailParser:
    """Takes the text of an e-mail, and its subject, sender and date as columns."""

    fingerprint = "email-1"
    suffixes = (".eml",)

    def parse(self, document: RawDocument) -> ParsedDocument:
        """Parse one e-mail. A message without a plain text has no text."""
        message = message_from_bytes(document.content, policy=policy.default)
        subject, sent = str(message.get("Subject", "")), message.get("Date")
        body = message.get_body(("plain",))
        text = body.get_content() if body is not None else ""
        columns = {
            "subject": subject,
            "sender": str(message.get("From", "")),
            "date": None if sent is None else parsedate_to_datetime(str(sent)),
        }
        return ParsedDocument([TextPiece(str(text), heading=(subject,))], columns)
