"""Translates errors of Lance into errors of this package: one class for each possible remedy."""

import re

from ingest_pipeline.errors import TableAccessError, TableFullError, TableIncompleteError, TableUnavailableError

_MAX_CHARACTERS = 300
# The line of Lance's sources that raised an error, as a path of the machine that built Lance.
_SOURCE_LOCATION = re.compile(r",?\s*/?[\w./@+~-]+\.rs:\d+(:\d+)?")
_WRAPPERS = re.compile(r"(External error|LanceError\(\w+\)|Generic [\w/]+ error|Invalid user input): ")
_LOGIN, _QUERY = re.compile(r"//[^/@\s]*@"), re.compile(r"(https?://[^\s?]+)\?\S+")
_CODE = re.compile(r"<Code>(\w+)</Code>")

_FULL = re.compile(
    r"os error (28|122)\b|no space left|quota exceeded|insufficient ?storage|status code: 507", re.IGNORECASE
)
_ACCESS = re.compile(
    r"os error (1|13|30)\b|permission denied|read-only file system|access ?denied|forbidden|credential|"
    r"status code: 40[13]|InvalidAccessKeyId|SignatureDoesNotMatch|ExpiredToken|unauthori[sz]ed|unauthenticated",
    re.IGNORECASE,
)
_NO_BUCKET = re.compile(r"NoSuchBucket|ContainerNotFound|list request.*\b404\b", re.DOTALL)
_DAMAGED = re.compile(
    r"not found|no such file|os error 2\b|invalid range|too small|magic|corrupt|malformed|truncated|decode|"
    r"checksum|unexpected end|failed to (parse|deserialize)|not a (valid )?lance",
    re.IGNORECASE,
)


def error_of(uri: str, error: BaseException) -> TableUnavailableError:
    """The error of this package that says what happened to a table, and what to do about it."""
    text = str(error)
    what, reason = f"The LanceDB table at {uri}", reason_of(error)
    if _FULL.search(text):
        return TableFullError(f"{what} cannot be written, because its storage is full: {reason}")
    if _ACCESS.search(text):
        return TableAccessError(f"{what} cannot be used, because its storage refuses access: {reason}")
    if _NO_BUCKET.search(text):
        return TableUnavailableError(f"{what} cannot be used, because its bucket does not exist: {reason}")
    if _DAMAGED.search(text):
        return TableIncompleteError(f"{what} has a file that is missing or damaged: {reason}")
    return TableUnavailableError(f"{what} cannot be used: {reason}")


def reason_of(error: BaseException) -> str:
    """Lance's message in one line, without source locations, logins and signed queries."""
    text = str(error)
    first = (text.splitlines() or [""])[0].partition("<?xml")[0]
    message = _WRAPPERS.sub("", _SOURCE_LOCATION.sub("", first))
    message = _QUERY.sub(r"\1", _LOGIN.sub("//", message)).strip(" ,:")
    code = _CODE.search(text)
    return f"{message[:_MAX_CHARACTERS] or type(error).__name__}{f' ({code[1]})' if code else ''}"
