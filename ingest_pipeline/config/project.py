"""The corpora of the project around the current folder, without an import of Dagster.

A project is a folder with one of these, and the nearest one above the current folder counts:

- a project of `dg`: `dg.toml`, or `[tool.dg]` in `pyproject.toml`. Its corpora are the components of this package in
  the YAML files below its `defs` folder. In a workspace of `dg`, the only project with corpora counts.
- a configuration file: `ingest-pipeline.toml`, or `[tool.ingest-pipeline]` in `pyproject.toml`. It has a table
  `corpora.NAME` for each corpus, and in `python` the dotted paths of values of `CorpusConfig`.

Variables `INGEST_*` override the values of the files.
"""

from __future__ import annotations

import os
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import yaml

from ingest_pipeline.config.corpus_config import CorpusConfig
from ingest_pipeline.config.environment import check_names, environment_values
from ingest_pipeline.config.options.corpus_options import CorpusOptions
from ingest_pipeline.config.origin import ENVIRONMENT, Origin
from ingest_pipeline.config.variables import load_dotenv, referenced, substituted
from ingest_pipeline.errors import ConfigurationError

CONFIGURATION_FILE = "ingest-pipeline.toml"
_COMPONENTS = {
    "ingest_pipeline.IngestPipelineComponent",
    "ingest_pipeline.orchestration.component.IngestPipelineComponent",
}
_COMPONENT_FILES = ("defs.yaml", "defs.yml", "component.yaml", "component.yml")
_PATHS = ("source", "state", "lancedb_uri", "golden_set")


@dataclass(frozen=True, slots=True)
class CodeLocation:
    """The code location of a project, as Dagster names it."""

    name: str
    module: str
    """The module with its definitions."""
    folder: Path
    """The folder in which Dagster imports the module."""


@dataclass(frozen=True, slots=True)
class ConfiguredCorpus:
    """The configuration of a corpus, and where it comes from."""

    config: CorpusConfig
    origin: Origin
    location: CodeLocation | None = None
    """The code location that has the corpus. None: that of the environment, `ingest_pipeline.definitions`."""
    upstream: Sequence[str] = ()
    """Keys of the assets that make the files of the source, as the component names them."""


@dataclass(frozen=True, slots=True)
class _Definition:
    """One corpus as a file defines it."""

    file: Path
    values: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Project:
    """A folder whose files define corpora."""

    root: Path
    corpora: Mapping[str, _Definition]
    """By name, with the key prefix if there is one: `PREFIX/NAME`."""
    location: CodeLocation | None

    def configured(self, name: str | None, environment: Mapping[str, str] = os.environ) -> ConfiguredCorpus:
        """The configuration of a corpus of the project.

        Args:
            name: Name of the corpus. None: the only one, or the one that INGEST_CORPUS names.
            environment: Variables, which override the values of the file.

        Raises:
            ConfigurationError: There is no such corpus, the choice is not clear, or a value is wrong.
        """
        found = self.corpora[self._chosen(name or environment.get("INGEST_CORPUS") or None)]
        _check_spelling(found)
        overriding = environment_values(environment)
        overriding.pop("corpus", None)
        overriding.pop("key_prefix", None)  # belongs to the name
        values: dict[str, object] = {
            option: substituted(value, option, found.file)
            for option, value in found.values.items()
            if option in CorpusOptions.model_fields and option not in overriding
        }
        values["state"] = values.get("state", CorpusOptions.model_fields["state"].default)
        values |= {path: _under(self.root, values[path]) for path in _PATHS if path in values}
        references = {option: referenced(value) for option, value in found.values.items()}
        origin = Origin(
            found.file, frozenset(overriding), {option: one for option, one in references.items() if one is not None}
        )
        check_names(environment)
        config = CorpusConfig.model_validate(values | overriding, context=origin)
        return ConfiguredCorpus(config, origin, self.location, _upstream(found))

    def _chosen(self, name: str | None) -> str:
        names = ", ".join(sorted(self.corpora))
        if name is None and len(self.corpora) > 1:
            raise ConfigurationError(
                f"The project in {self.root} defines several corpora: {names}", "Choose one with --corpus NAME."
            )
        if name is not None and name in self.corpora:
            return name
        matching = [key for key in self.corpora if name in (None, key, key.rpartition("/")[2])]
        if len(matching) > 1:
            raise ConfigurationError(
                f"The project in {self.root} defines several corpora {name!r}: {', '.join(sorted(matching))}",
                "Choose one with --corpus PREFIX/NAME.",
            )
        if not matching:
            raise ConfigurationError(
                f"The project in {self.root} defines no corpus {name!r}. It defines {names}",
                "Correct --corpus or INGEST_CORPUS, or run the command outside of the project.",
            )
        return matching[0]


def configured_corpus(name: str | None = None, folder: Path | None = None) -> ConfiguredCorpus:
    """The configuration of a corpus: that of the project around the folder, or that of the environment.

    Args:
        name: Name of the corpus. None: the only one of the project, or the one that INGEST_CORPUS names.
        folder: Where to begin. Default: the current folder.

    Raises:
        ConfigurationError: There is no such corpus, the choice is not clear, or a value is wrong.
    """
    project = find_project(folder or Path.cwd())
    if project is not None:
        return project.configured(name)
    environment = os.environ if name is None else os.environ | {"INGEST_CORPUS": name}
    return ConfiguredCorpus(CorpusConfig.from_environment(environment), ENVIRONMENT)


def find_project(folder: Path) -> Project | None:
    """The project of a folder, None if no folder above it defines a corpus.

    Raises:
        ConfigurationError: A file of the project is malformed, two define one corpus, or the folder is a workspace
            of several projects with corpora.
    """
    for root in (folder.absolute(), *folder.absolute().parents):
        dg, own, file = _tables(root)
        found = _of_workspace(root, dg) if "workspace" in dg and not own else _of_project(root, dg, own, file)
        if found is not None:
            return found
    return None


def _of_project(root: Path, dg: Mapping[str, Any], own: Mapping[str, Any], file: Path) -> Project | None:
    if not own and "project" not in dg:
        return None
    load_dotenv(root)
    location = _location(root, dg) if "project" in dg else None
    sys.path.append(str(location.folder if location else root))
    definitions = [*_tables_of_corpora(own, file), *_values_in_python(own, file)]
    if location is not None:
        definitions += _components(location.folder, dg["project"])
    return Project(root, _by_name(definitions), location) if definitions else None


def _of_workspace(root: Path, dg: Mapping[str, Any]) -> Project | None:
    """The only project with corpora among the projects of a workspace of `dg`, None if none has any."""
    paths = [root / str(project.get("path", "")) for project in dg["workspace"].get("projects", ())]
    found = [project for path in paths if (project := _of_project(path, *_tables(path))) is not None]
    if len(found) > 1:
        folders = ", ".join(str(project.root) for project in found)
        raise ConfigurationError(
            f"{root} is a workspace of dg, and several of its projects define corpora: {folders}",
            "Run the command in the folder of one of these projects.",
        )
    return found[0] if found else None


def _tables(root: Path) -> tuple[dict[str, Any], dict[str, Any], Path]:
    """The settings of `dg` and of this package in a folder, and the file of the latter. Empty: there are none."""
    tool = _toml(root / "pyproject.toml").get("tool", {})
    file, own = root / CONFIGURATION_FILE, _toml(root / CONFIGURATION_FILE)
    if not own and "ingest-pipeline" in tool:
        file, own = root / "pyproject.toml", tool["ingest-pipeline"]
    return _toml(root / "dg.toml") or tool.get("dg", {}), own, file


def _toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text())
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return {}
    except ValueError as error:
        raise ConfigurationError(f"{file} is malformed: {error}", "Correct it.") from error


def _location(root: Path, dg: Mapping[str, Any]) -> CodeLocation:
    project: Mapping[str, Any] = dg["project"]
    module = str(project.get("root_module", root.name.replace("-", "_")))
    source = root / "src"
    return CodeLocation(
        str(project.get("code_location_name") or root.name),
        str(project.get("code_location_target_module") or f"{module}.definitions"),
        source if source.is_dir() else root,
    )


def _components(folder: Path, project: Mapping[str, Any]) -> Iterator[_Definition]:
    """The components of this package in the YAML files of a project of `dg`."""
    root_module = str(project.get("root_module", ""))
    module = str(project.get("defs_module") or f"{root_module}.defs")
    defs = folder / Path(*module.split("."))
    for file in sorted(path for name in _COMPONENT_FILES for path in defs.rglob(name)):
        try:
            documents = list(yaml.safe_load_all(file.read_text()))
        except (yaml.YAMLError, UnicodeError) as error:
            where = " ".join(str(error).split())
            raise ConfigurationError(f"{file} is malformed: {where}", "Correct it.") from error
        for one in documents:
            if isinstance(one, dict) and one.get("type") in _COMPONENTS:
                yield _Definition(file, _mapping(one.get("attributes"), file, "attributes"))


def _tables_of_corpora(own: Mapping[str, Any], file: Path) -> Iterator[_Definition]:
    unknown = own.keys() - {"corpora", "python"}
    if unknown:
        raise ConfigurationError(
            f"{file}: there is no setting {min(unknown)!r}", "It has tables `corpora.NAME` and the list `python`."
        )
    for name, values in _mapping(own.get("corpora"), file, "corpora").items():
        table = _mapping(values, file, f"corpora.{name}")
        unknown = table.keys() - CorpusOptions.model_fields.keys() | table.keys() & {"corpus"}
        if unknown:
            close = get_close_matches(min(unknown), CorpusOptions.model_fields.keys() - {"corpus"}, n=1)
            remedy = f"Did you mean {close[0]}?" if close else "Correct its name."
            raise ConfigurationError(f"{file}: corpora.{name} has no option {min(unknown)!r}", remedy)
        yield _Definition(file, {"corpus": name, **table})


def _values_in_python(own: Mapping[str, Any], file: Path) -> Iterator[_Definition]:
    for path in own.get("python", ()):
        module, _, attribute = str(path).partition(":")
        try:
            config = getattr(import_module(module), attribute)
        except (ImportError, AttributeError, ValueError) as error:
            raise ConfigurationError(
                f"{file}: {path!r} in `python` cannot be imported: {error}",
                "Write it like my_package.corpora:HANDBOOK.",
            ) from error
        if not isinstance(config, CorpusConfig):
            raise ConfigurationError(
                f"{file}: {path!r} in `python` is no CorpusConfig", "Name a value of CorpusConfig."
            )
        yield _Definition(file, {name: getattr(config, name) for name in config.model_fields_set})


def _by_name(definitions: list[_Definition]) -> dict[str, _Definition]:
    found: dict[str, _Definition] = {}
    for one in definitions:
        corpus = str(substituted(one.values.get("corpus", ""), "corpus", one.file))
        prefix = substituted(one.values.get("key_prefix"), "key_prefix", one.file) or []
        name = "/".join([*([prefix] if isinstance(prefix, str) else map(str, cast("list[object]", prefix))), corpus])
        if name in found:
            raise ConfigurationError(
                f"{found[name].file} and {one.file} both define the corpus {name!r}", "Rename one of the corpora."
            )
        found[name] = one
    return found


def _check_spelling(definition: _Definition) -> None:
    """Refuse an attribute of a component that looks like an option and is none.

    The other attributes of the component are Dagster's, which knows them, and are not read here.

    Raises:
        ConfigurationError: An attribute is probably misspelt. Its option would have its default.
    """
    for name in sorted(definition.values.keys() - CorpusOptions.model_fields.keys()):
        close = get_close_matches(name, CorpusOptions.model_fields, n=1, cutoff=0.9)
        if close:
            raise ConfigurationError(
                f"{definition.file}: there is no attribute {name!r}", f"Did you mean {close[0]}? Nothing was changed."
            )


def _upstream(definition: _Definition) -> Sequence[str]:
    """The assets that a component names as upstream. A template that only Dagster can resolve is no error here."""
    try:
        found = substituted(definition.values.get("upstream", []), "upstream", definition.file)
    except ConfigurationError:
        return ()
    return [str(key) for key in found] if isinstance(found, list) else ()


def _mapping(value: object, file: Path, name: str) -> Mapping[str, object]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigurationError(f"{file}: {name} is no table of options", "Correct it.")
    return cast("dict[str, object]", value)


def _under(root: Path, location: object) -> str:
    return str(location) if "://" in str(location) else str(root / str(location))
