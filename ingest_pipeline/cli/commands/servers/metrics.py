"""The command `metrics`."""

from __future__ import annotations

from contextlib import suppress

import click

from ingest_pipeline.cli import _session, _settings
from ingest_pipeline.cli._group import command
from ingest_pipeline.cli._numbers import PORT
from ingest_pipeline.cli._terminal import echo
from ingest_pipeline.errors import ConfigurationError, MissingExtraError
from ingest_pipeline.postgres.database import Database


@command
@click.option("--once", is_flag=True, help="Print the figures and exit, for a file that another exporter serves.")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", default=9464, show_default=True, type=PORT, help="The port.")
def metrics(*, once: bool, host: str, port: int) -> None:
    """Serve the figures of all corpora of the database to Prometheus at /metrics, until interrupted.

    The figures are read at each scrape: documents, lag, head, sagas, tokens, cost, batch jobs and Dagster's run queue.
    The server has no authentication. It needs the extra `metrics`, and a user of Postgres who may read.
    """
    try:
        from ingest_pipeline.integrations.prometheus.serve import metrics_server, metrics_text  # noqa: PLC0415  an extra
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "prometheus_client":
            raise
        raise MissingExtraError(
            "The Prometheus client is not installed", "Run `pip install 'ingest-pipeline[metrics]'`."
        ) from None
    with _session.postgres(_settings.settings()) as running, Database(running.database_url or "") as database:
        if once:
            echo(metrics_text(database))
            return
        try:
            server = metrics_server(database, host, port)
        except OSError as error:
            raise ConfigurationError(
                f"The address {host}:{port} cannot be used: {error.strerror or error}",
                "Choose another one by --host and --port.",
            ) from error
        with server, suppress(KeyboardInterrupt):
            echo(f"Metrics at http://{host}:{server.server_port}/metrics; interrupt to stop.", err=True)
            server.serve_forever()
