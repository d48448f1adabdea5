"""Who may call the tools over HTTP: bearer tokens and their principals, from a file that has the tokens' hashes."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import yaml
from mcp.server.auth.provider import AccessToken
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from ingest_pipeline.errors import ConfigurationError
from ingest_pipeline.telemetry.logs import get_logger

PRINCIPALS = "principals"
_LOG = get_logger(__name__)


class _Client(BaseModel):
    """An entry of the file."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    principals: list[str] = []


_CLIENTS: TypeAdapter[list[_Client]] = TypeAdapter(list[_Client])


class TokenFile:
    """A file of clients with the SHA-256 of their tokens and their principals.

    The file is read again when it changes, so a client that was removed is refused at its next call. While the file
    cannot be read, every client is refused.

    Args:
        path: A YAML list with `name`, `sha256` and `principals` of each client.

    Raises:
        ConfigurationError: The file is missing or malformed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, ...] = ()
        self._clients: dict[str, _Client] = {}
        self._read()

    async def verify_token(self, token: str) -> AccessToken | None:
        """The client with the token; None: there is none."""
        try:
            if self._stamp != self._changed():
                self._read()
        except ConfigurationError as error:
            self._clients, self._stamp = {}, ()
            _LOG.error("%s", error)
        client = self._clients.get(hashlib.sha256(token.encode()).hexdigest())
        if client is None:
            return None
        return AccessToken(token=token, client_id=client.name, scopes=[], claims={PRINCIPALS: client.principals})

    def _changed(self) -> tuple[int, ...]:
        try:
            found = self._path.stat()
        except OSError as error:
            raise self._malformed(error.strerror or str(error)) from error
        return found.st_mtime_ns, found.st_size, found.st_ino

    def _read(self) -> None:
        stamp = self._changed()
        try:
            clients = _CLIENTS.validate_python(yaml.safe_load(self._path.read_text()))
        except OSError as error:
            raise self._malformed(error.strerror or str(error)) from error
        except (ValueError, yaml.YAMLError) as error:
            raise self._malformed(_reason(error)) from error
        self._clients = {client.sha256: client for client in clients}
        self._stamp = stamp

    def _malformed(self, reason: str) -> ConfigurationError:
        return ConfigurationError(
            f"The file of tokens {self._path} cannot be used: {reason}",
            "It is a YAML list of clients with `name`, `sha256` and `principals`; docs/how-to/mcp.md shows one.",
        )


def _reason(error: Exception) -> str:
    """What is wrong with the file, without its content."""
    if isinstance(error, ValidationError):
        first: Any = error.errors(include_input=False, include_url=False)[0]
        return f"{'.'.join(map(str, first['loc'])) or 'the file'}: {first['msg']}"
    return "it is not YAML"
