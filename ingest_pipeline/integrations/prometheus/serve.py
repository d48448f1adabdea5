"""Serves the figures over HTTP, at /metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from http import HTTPStatus
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import generate_latest, make_wsgi_app

from ingest_pipeline.errors import IngestError
from ingest_pipeline.integrations.prometheus.figures import registry_of
from ingest_pipeline.postgres.database import Database
from ingest_pipeline.telemetry.logs import get_logger

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

_log = get_logger(__name__)
_SECONDS = 30.0
"""How long a client may be silent."""


class _Server(ThreadingMixIn, WSGIServer):
    """Answers each scrape in a thread of its own, so that a slow client does not stop the others."""

    daemon_threads = True


class _Handler(WSGIRequestHandler):
    timeout = _SECONDS

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the name is that of the base class
        """Log a scrape at level DEBUG."""
        _log.debug(format, *args)


def metrics_server(database: Database, host: str, port: int) -> WSGIServer:
    """A server that listens and does not answer before `serve_forever` is called.

    Args:
        database: The database, open.
        host: Address to listen on.
        port: Port to listen on. 0: any that is free.

    Raises:
        OSError: The address cannot be used.
    """
    return make_server(host, port, _application(database), _Server, _Handler)


def metrics_text(database: Database) -> str:
    """The figures as Prometheus reads them, once.

    Args:
        database: The database, open.
    """
    return generate_latest(registry_of(database)).decode().rstrip("\n")


def _application(database: Database) -> Callable[[WSGIEnvironment, StartResponse], Iterable[bytes]]:
    metrics = make_wsgi_app(registry_of(database))

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ.get("PATH_INFO") not in {"/", "/metrics"}:
            return _text(start_response, HTTPStatus.NOT_FOUND, "The figures are at /metrics.")
        try:
            return list(metrics(environ, start_response))
        except IngestError as error:
            _log.warning("a scrape failed: %s", error)
            return _text(start_response, HTTPStatus.SERVICE_UNAVAILABLE, "The database does not answer.")

    return answer


def _text(start_response: StartResponse, status: HTTPStatus, text: str) -> list[bytes]:
    start_response(f"{status.value} {status.phrase}", [("Content-Type", "text/plain; charset=utf-8")])
    return [f"{text}\n".encode()]
