"""Tags of an object in S3, which the object store library does not read.

The library finds credentials in many ways and signs urls of objects, but not of an object's tags. Therefore a second
store gets the url of the object, with the query `?tagging`, as its endpoint. What the library appends to an endpoint is
the value of one more parameter here, and S3 ignores parameters whose names begin with `x-`.
"""

from __future__ import annotations

import re
import ssl
from datetime import timedelta
from functools import cache
from http import HTTPStatus
from xml.etree import ElementTree as ET

import httpx2
from obstore import sign
from obstore.store import S3Store

_VALID = timedelta(minutes=5)
_SECONDS = 20.0


def read_tags(store: S3Store, key: str) -> dict[str, str]:
    """The tags of an object, by name, with one request.

    Raises:
        FileNotFoundError: There is no such object.
        ConnectionError: S3 does not answer. The next attempt may succeed.
        OSError: S3 refuses.
        obstore.exceptions.BaseError: There are no credentials.
    """
    try:
        answer = httpx2.get(signed_url(store, key), timeout=_SECONDS, verify=_trusted_certificates())
    except httpx2.TransportError as error:
        message = f"no answer to a request for tags ({type(error).__name__})"
        raise ConnectionError(message) from error
    if answer.status_code == HTTPStatus.OK:
        return _tags(answer.content)
    code = re.search(r"<Code>(\w+)</Code>", answer.text)
    problem = f"S3 answered {answer.status_code} {code[1] if code else ''} to a request for the tags of {key!r}"
    if answer.status_code == HTTPStatus.NOT_FOUND:
        raise FileNotFoundError(problem)
    if answer.status_code == HTTPStatus.TOO_MANY_REQUESTS or answer.is_server_error:
        raise ConnectionError(problem)
    message = f"{problem}. Reading tags needs the permission s3:GetObjectTagging"
    raise OSError(message)


@cache
def _trusted_certificates() -> ssl.SSLContext:
    """The certificates that this machine trusts. All requests share them, because loading takes 25 ms."""
    return httpx2.create_ssl_context()


def signed_url(store: S3Store, key: str) -> str:
    """The url that answers with the tags of an object, for the next minutes."""
    url = sign(store, "GET", key, _VALID).partition("?")[0]
    of_tags = S3Store(
        store.config.get("bucket"),
        endpoint=f"{url}?tagging=&x-at=",
        virtual_hosted_style_request=True,
        client_options=store.client_options,
    )
    return sign(of_tags, "GET", "tags", _VALID)


def _tags(body: bytes) -> dict[str, str]:
    try:
        found = ET.fromstring(body).iter()  # noqa: S314  the server is the user's own; expat bounds what entities expand to
    except ET.ParseError as error:
        message = "the answer to a request for tags is not XML"
        raise OSError(message) from error
    tags = [element for element in found if element.tag.endswith("Tag")]
    return {tag.findtext("{*}Key") or "": tag.findtext("{*}Value") or "" for tag in tags}
