"""The command `init`."""

from __future__ import annotations

from pathlib import Path

import click

from ingest_pipeline.cli import _template
from ingest_pipeline.cli._group import plain_command
from ingest_pipeline.cli._terminal import echo
from ingest_pipeline.config.project import CONFIGURATION_FILE, find_project
from ingest_pipeline.errors import ConfigurationError
from ingest_pipeline.sources.source_url import canonical_url
from ingest_pipeline.types import corpus_name


@plain_command
@click.argument("name", default="documents")
@click.option("--source", default="documents", show_default=True, help="The files: a path, or s3://bucket/prefix.")
def init(name: str, source: str) -> None:
    """Write a commented configuration file into the current folder, and a list of variables.

    The files are ingest-pipeline.toml and .env.example. NAME is the name of the corpus. Files that exist are
    not changed.
    """
    file, example = Path(CONFIGURATION_FILE), Path(".env.example")
    corpus_name(name)
    if "://" in source:
        canonical_url(source)
    project = find_project(Path.cwd())
    if file.exists() or (project is not None and project.root == Path.cwd()):
        raise ConfigurationError(
            "This folder has a configuration already. Nothing was changed",
            f"Edit it, or add a table [corpora.{name}] to {CONFIGURATION_FILE} for a further corpus.",
        )
    file.write_text(_template.configuration(name, source), encoding="utf-8")
    echo(f"{file} configures the corpus {name} of {source}.")
    if not example.exists():
        example.write_text(_template.variables(), encoding="utf-8")
        echo(f"{example} lists the variables for passwords and keys; copy it to .env.")
    if "://" not in source and not Path(source).is_dir():
        echo(f"The folder {source} does not exist yet.")
    echo("Next: `ingest-pipeline doctor` checks the settings, and `ingest-pipeline ingest` ingests the files.")
