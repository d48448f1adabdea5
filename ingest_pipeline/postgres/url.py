"""Parse and write addresses of Postgres databases. No error raised here quotes any part of a password."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import quote, urlencode

import psycopg
from psycopg.conninfo import conninfo_to_dict

from ingest_pipeline.errors import ConfigurationError

SETTING = "INGEST_DATABASE_URL"

_URL = re.compile(r"(?:postgresql|postgres)(?:\+\w+)?://(.*)", re.DOTALL)
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
# One host of a list: a name, an IP address or the folder of a Unix socket. An unencoded @ or / of a password would end
# up in the host.
_HOST = re.compile(r"[\w.-]+|[0-9A-Fa-f:.]+(?:%\w+)?|/[^\x00]*")
_PORT = re.compile(r"[0-9]{1,5}|")
_ENCODE = (
    "Write % / # ? @ : and spaces within the user, password and database of a url as %25 %2F %23 %3F %40 %3A %20, or "
    "set key=value words: host=... port=... user=... password='...' dbname=..."
)


def database_url(text: str, setting: str = SETTING) -> str:
    """Return the canonical form of an address: a ``postgresql://`` url with every part encoded.

    Args:
        text: A url that libpq accepts, optionally with SQLAlchemy's driver suffix, or libpq's key=value words.
        setting: Name of the setting that has the text, for the error.

    Raises:
        ConfigurationError: The text does not name a Postgres database, or it is ambiguous.
    """
    return write_url(_read(text.strip(), setting))


def parts_of(url: str) -> dict[str, str]:
    """Return the libpq parameters of a url from `database_url`."""
    return _read(url, SETTING)


def write_url(parts: Mapping[str, str], driver: str = "") -> str:
    """Write libpq parameters as a url that libpq and SQLAlchemy parse in the same way.

    Args:
        parts: Parameters by name.
        driver: SQLAlchemy's name of the driver.
    """
    rest = dict(parts)
    user, password = rest.pop("user", ""), rest.pop("password", "")
    login = quote(user, safe="") + (f":{quote(password, safe='')}" if password else "")
    place = ""
    # Both parsers agree on host lists, addresses with colons and socket folders only if these are in the query.
    if re.fullmatch(r"[\w.-]+", rest.get("host", ""), re.ASCII):
        place = rest.pop("host") + (f":{port}" if (port := rest.pop("port", "")) else "")
    database = quote(rest.pop("dbname", ""), safe="")
    query = f"?{urlencode(rest, quote_via=quote)}" if rest else ""
    suffix = f"+{driver}" if driver else ""
    return f"postgresql{suffix}://{login}{'@' if login else ''}{place}/{database}{query}"


def place_of(url: str) -> str:
    """Return host, port and database of a url, for messages."""
    parts = parts_of(url)
    host = parts.get("host") or parts.get("hostaddr") or parts.get("service") or "the local socket"
    return f"{host}:{parts.get('port') or 5432}/{parts.get('dbname', '')}"


def holds_password(text: str) -> bool:
    """Whether an address contains a password. For a malformed address the answer may be wrongly True."""
    try:
        parts = _read(text.strip(), SETTING)
    except ConfigurationError:
        return "@" in text or "password" in text
    return "password" in parts or "sslpassword" in parts


def without_password(message: str, url: str) -> str:
    """Mask the url's password in a library's message, in each encoding."""
    parts = parts_of(url)
    shown = {parts.get(name) for name in ("user", "dbname", "host", "port")}
    for name in ("password", "sslpassword"):
        if (secret := parts.get(name)) and secret not in shown:
            for spelled in {secret, quote(secret, safe=""), quote(secret)}:
                message = message.replace(spelled, "***")
    return message


def _read(text: str, setting: str) -> dict[str, str]:
    url = _URL.fullmatch(text)
    if url is None and (not text or _SCHEME.match(text)):
        raise ConfigurationError(f"{setting} must begin with postgresql://", f"Correct {setting}.")
    try:
        # libpq's own parser, so that the checks see what libpq would connect to.
        read = conninfo_to_dict(f"postgresql://{url[1]}" if url else text)
    except (psycopg.Error, UnicodeError):
        # The message of the error quotes the malformed part, which may be a password.
        raise _malformed("is not a well-formed address of a Postgres database", setting) from None
    parts = {name: str(value) for name, value in read.items() if value is not None}
    if not all(map(_HOST.fullmatch, filter(None, parts.get("host", "").split(",")))):
        raise _malformed("does not name a host where its host should be", setting)
    if not all(
        _PORT.fullmatch(port) and int(port or 1) in range(1, 65_536) for port in parts.get("port", "").split(",")
    ):
        raise _malformed("does not have a number where its port should be", setting)
    if url is not None and re.search(r"[/@]", url[1].partition("/")[2].partition("?")[0]):
        raise _malformed("has / or @ in the name of its database", setting)
    return parts


def _malformed(problem: str, setting: str) -> ConfigurationError:
    return ConfigurationError(f"{setting} {problem}", _ENCODE)
