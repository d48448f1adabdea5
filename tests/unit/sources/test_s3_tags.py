"""The request for the tags of an object has the signature that S3 computes."""

from __future__ import annotations

from urllib.parse import parse_qsl, quote, urlsplit

import pytest
from botocore.auth import S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from obstore.store import S3Store

from ingest_pipeline.sources.s3_tags import signed_url

pytestmark = pytest.mark.promise("columns")

SECRET = "a secret"  # noqa: S105


@pytest.mark.parametrize("endpoint", [None, "https://s3.example.com:9000"])
@pytest.mark.parametrize("token", [None, "a/token+of a session"])
def test_the_request_for_tags_is_signed_as_s3_expects(
    endpoint: str | None, token: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"ACCESS_KEY_ID": "an id", "SECRET_ACCESS_KEY": SECRET, "REGION": "eu-west-1"}
    settings |= {"SESSION_TOKEN": token} if token else {}
    settings |= {"ENDPOINT_URL": endpoint} if endpoint else {}
    for name, value in settings.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    parts = urlsplit(signed_url(S3Store("bucket", prefix="docs"), "a b+ü/c?.txt"))
    asked = dict(parse_qsl(parts.query, keep_blank_values=True))
    assert parts.netloc == (urlsplit(endpoint).netloc if endpoint else "s3.eu-west-1.amazonaws.com")
    assert parts.path == f"/bucket/docs/{quote('a b+ü/c?.txt')}"
    assert asked.pop("tagging") == ""
    assert asked.get("X-Amz-Security-Token") == token
    assert [name for name in asked if not name.lower().startswith("x-")] == []
    assert asked.pop("X-Amz-Signature") == signature(parts.netloc, parts.path, {"tagging": "", **asked})


def signature(host: str, path: str, query: dict[str, str]) -> str:
    auth = S3SigV4QueryAuth(Credentials("an id", SECRET), "s3", "eu-west-1")
    request = AWSRequest("GET", f"https://{host}{path}")
    request.context["timestamp"] = query["X-Amz-Date"]
    asked = {name: value for name, value in query.items() if name != "X-Amz-Signature"}
    pairs = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in sorted(asked.items()))
    canonical = f"GET\n{path}\n{pairs}\nhost:{host}\n\nhost\nUNSIGNED-PAYLOAD"
    return str(auth.signature(auth.string_to_sign(request, canonical), request))
