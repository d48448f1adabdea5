"""The commands `ui` and `demo`."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import click
import yaml

from ingest_pipeline.cli import _session, _settings
from ingest_pipeline.cli._group import command, plain_command
from ingest_pipeline.cli._numbers import PORT
from ingest_pipeline.cli._terminal import echo
from ingest_pipeline.config.corpus_config import CorpusConfig
from ingest_pipeline.config.project import CodeLocation
from ingest_pipeline.errors import ConfigurationError, MissingExtraError
from ingest_pipeline.processes import with_parent_death_signal

_STOPPING_SECONDS = 30
_DEMO = Path(".ingest_pipeline/demo")
# Dagster warns that `dagster dev` is superseded by `dg dev`, which needs a project.
NO_WARNING = "ignore:Function `dev_command` is superseded"


@command
@click.option("--port", default=3000, show_default=True, type=PORT, help="Port of the web server, on 127.0.0.1.")
@click.option("--demo", "of_demo", is_flag=True, help="Show the corpus of `ingest-pipeline demo`.")
def ui(port: int, *, of_demo: bool) -> None:
    """Run Dagster's web server and daemon for the corpus, until interrupted."""
    settings = _session.demo_settings(_DEMO) if of_demo else _settings.settings()
    dagster = shutil.which("dagster", path=str(Path(sys.executable).parent))
    if dagster is None or shutil.which("dagster-webserver", path=str(Path(sys.executable).parent)) is None:
        raise MissingExtraError("Dagster's web server is not installed", "Run `pip install 'ingest-pipeline[ui]'`.")
    _check_port(port)
    with _session.postgres(settings) as running:
        from ingest_pipeline.reporting.dagster_tables import complete_tables  # noqa: PLC0415  imports Dagster

        chosen = None if of_demo else _settings.chosen_corpus()
        if chosen is None or chosen.origin.file is None:
            environment = os.environ | _session.dagster_environment(running) | {"INGEST_CORPUS": settings.corpus}
        else:
            environment = os.environ | _session.instance_environment(running)
        location = ["-m", "ingest_pipeline.definitions"]
        shown = f"corpus {settings.corpus}"
        if chosen is not None and chosen.location is not None:
            location, shown = ["-w", _workspace(settings, chosen.location)], f"the project {chosen.location.name}"
        environment["PYTHONWARNINGS"] = ",".join(filter(None, [environment.get("PYTHONWARNINGS"), NO_WARNING]))
        complete_tables(environment[_session.STORAGE_URL])
        echo(f"Dagster at http://127.0.0.1:{port} shows {shown}; interrupt to stop.")
        arguments = [dagster, "dev", *location, "-h", "127.0.0.1", "-p", str(port)]
        sys.exit(_run_until_interrupted(arguments, environment))


def _check_port(port: int) -> None:
    """Dagster's daemon would continue without its web server, and another program would answer at the address."""
    with socket.socket() as probe:
        # The connections of a server that has just ended do not hinder the next one.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise ConfigurationError(
                f"Port {port} of 127.0.0.1 cannot be used: {error.strerror}", "Choose another one with --port."
            ) from error


def _workspace(settings: CorpusConfig, location: CodeLocation) -> str:
    """Write the file by which Dagster finds a project, under the name that `dg` gives it; returns its path."""
    module = {
        "module_name": location.module,
        "working_directory": str(location.folder),
        "location_name": location.name,
    }
    file = settings.dagster_home / "workspace.yaml"
    file.write_text(yaml.safe_dump({"load_from": [{"python_module": module}]}))
    return str(file)


def _run_until_interrupted(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run a program that stops its own children when it is interrupted, and leave no process behind."""
    interrupted = threading.Event()

    # Installed before the child starts, which would otherwise inherit the ignored interrupt of a background job and
    # never stop.
    def stop(_: int, __: object) -> None:
        interrupted.set()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    # In a session of its own, so that an interrupt from the terminal reaches the program once, through this process.
    command_line = with_parent_death_signal(arguments)
    with subprocess.Popen(command_line, env=environment, start_new_session=True) as process:  # noqa: S603  our own arguments
        try:
            while process.poll() is None and not interrupted.wait(0.2):
                pass
            process.send_signal(signal.SIGINT)
            return process.wait(_STOPPING_SECONDS)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


@plain_command
@click.option(
    "--directory",
    type=click.Path(path_type=Path),
    default=_DEMO,
    show_default=True,
    help="Folder for all files of the demonstration.",
)
def demo(directory: Path) -> None:
    """Ingest Python's own documentation, kill a run during a publication, and show that nothing was lost."""
    from ingest_pipeline.cli.demo.run import run_demo  # noqa: PLC0415  `ui` needs no Dagster in its own process

    sys.exit(run_demo(directory))
