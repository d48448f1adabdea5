"""The environment, the component and the reference page have the same settings."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ingest_pipeline.config.corpus_config import CorpusConfig, own_folders
from ingest_pipeline.config.environment import environment_options, variable_of
from ingest_pipeline.config.options.corpus_options import CorpusOptions
from ingest_pipeline.errors import ConfigurationError
from ingest_pipeline.orchestration.build import DagsterOptions
from ingest_pipeline.orchestration.component import IngestPipelineComponent

ROOT = Path(__file__).parents[2]


PAGE = (ROOT / "docs" / "reference" / "configuration.md").read_text()


def test_the_reference_lists_the_variables_that_are_read() -> None:
    listed = set(re.findall(r"<br>`(INGEST_[A-Z_]+)` \|", PAGE))
    assert listed == _variables(), "run `make reference`"


def test_the_reference_has_the_defaults_and_the_descriptions_of_the_options() -> None:
    rows = {name: row for row in PAGE.splitlines() for name in re.findall(r'<a id="(\w+)">', row)}
    assert rows.keys() == CorpusOptions.model_fields.keys()
    for name, field in CorpusOptions.model_fields.items():
        _, _, _, default, meaning, *_ = rows[name].split("|")
        shown = field.default if field.default_factory is None and not field.is_required() else None
        if shown not in {None, "", ()}:
            assert default.strip(" `").lower() == str(shown).lower(), rows[name]
        assert field.description is not None
        assert meaning.strip().startswith(field.description.replace("<", "&lt;")), rows[name]


def test_the_component_has_an_attribute_for_each_variable() -> None:
    attributes = set(IngestPipelineComponent.model_fields)
    assert {name.removeprefix("INGEST_").lower() for name in _variables()} - attributes == set()


def _variables() -> set[str]:
    return set(map(variable_of, environment_options()))


def test_this_packages_own_folders_below_the_source_are_no_documents(tmp_path: Path) -> None:
    def patterns(**environment: str) -> set[str]:
        config = CorpusConfig.from_environment(environment)
        home = environment.get("DAGSTER_HOME")
        return {*own_folders(config.source, config.lancedb_uri, Path(config.state), home), *config.exclude}

    state = str(tmp_path / "[x] y")
    assert patterns(INGEST_SOURCE=str(tmp_path), INGEST_STATE=state, INGEST_EXCLUDE="*.log") == {
        "*.log",
        r"/\[x\]\ y/dagster/",
        r"/\[x\]\ y/lancedb/",
        r"/\[x\]\ y/postgres/",
    }
    elsewhere = str(tmp_path / "documents")
    assert patterns(INGEST_SOURCE=elsewhere, INGEST_STATE=state) == set()
    assert patterns(INGEST_SOURCE="s3://bucket/x", INGEST_STATE=state) == set()
    assert patterns(INGEST_SOURCE=elsewhere, INGEST_STATE=state, INGEST_LANCEDB_URI=f"{elsewhere}/t") == {"/t/"}
    assert patterns(INGEST_SOURCE=elsewhere, INGEST_STATE=state, DAGSTER_HOME=f"{elsewhere}/d") == {"/d/"}
    assert patterns(INGEST_SOURCE=elsewhere, INGEST_STATE=state, DAGSTER_HOME=str(tmp_path)) == set()


def test_a_configuration_selects_no_file_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
    config = CorpusConfig(corpus="docs", source=str(tmp_path), state=str(tmp_path / "s"), exclude=["*.log"])
    reasons = {key: config.selection.name_exclusion_reason(key) for key in ("a.md", "a.log", "s/lancedb/x", "home/y")}
    assert reasons == {"a.md": None, "a.log": "excluded", "s/lancedb/x": "excluded", "home/y": "excluded"}


def test_every_option_says_what_it_is_for_and_the_component_adds_none() -> None:
    options = {**CorpusOptions.model_fields, **DagsterOptions.model_fields}
    assert [name for name, field in options.items() if not field.description] == []
    assert set(IngestPipelineComponent.model_fields) == set(options)


def test_environment_and_python_make_the_same_configuration() -> None:
    environment = {
        "INGEST_CORPUS": "handbook",
        "INGEST_SOURCE": "s3://company/handbook",
        "INGEST_INCLUDE": "*.md:/docs/*.txt",
        "INGEST_MAX_BYTES": "9",
        "INGEST_CHUNK_SIZE": "700",
        "INGEST_RETENTION_DAYS": "3",
        "INGEST_DATABASE_URL": "postgresql://host/db",
        "INGEST_ENCODING": "",
    }
    assert CorpusConfig.from_environment(environment) == CorpusConfig(
        corpus="handbook",
        source="s3://company/handbook",
        include=["*.md", "/docs/*.txt"],
        max_bytes=9,
        chunk_size=700,
        retention_days=3,
        database_url="postgresql://host/db",
    )


def test_the_environment_declares_columns_in_json_and_their_switches_as_booleans() -> None:
    environment = {
        "INGEST_CORPUS": "handbook",
        "INGEST_SOURCE": "s3://company/handbook",
        "INGEST_COLUMNS": '{"department": "string", "readers": "list<string>"}',
        "INGEST_CHUNK_COLUMNS": '{"topic": "string"}',
        "INGEST_COLUMNS_FROM_KEY": "{department}/**",
        "INGEST_COLUMNS_FROM_TAGS": "department",
        "INGEST_ACCESS": "readers",
        "INGEST_REQUIRE_PRINCIPALS": "True",
    }
    config = CorpusConfig.from_environment(environment)
    assert config == CorpusConfig(
        corpus="handbook",
        source="s3://company/handbook",
        columns={"department": "string", "readers": "list<string>"},
        chunk_columns={"topic": "string"},
        columns_from_key="{department}/**",
        columns_from_tags=["department"],
        access="readers",
        require_principals=True,
    )
    assert config.declared_columns.names == ("department", "readers", "topic")
    assert not CorpusConfig.from_environment(environment | {"INGEST_REQUIRE_PRINCIPALS": "0"}).require_principals


@pytest.mark.parametrize(
    ("variable", "text", "problem"),
    [
        ("COLUMNS", "department: string", "INGEST_COLUMNS is 'department: string', which is not an object in JSON"),
        ("COLUMNS", '["department"]', "which is not an object in JSON"),
        ("COLUMNS", '{"department": "text"}', "INGEST_COLUMNS gives the column 'department' the type 'text'"),
        ("COLUMNS", '{"department": 1}', "INGEST_COLUMNS"),
        ("COLUMNS_FROM_KEY", "{team}/**", "which names the undeclared column 'team'"),
        ("COLUMNS_FROM_TAGS", "readers:team", "INGEST_COLUMNS_FROM_TAGS names the undeclared column 'team'"),
        ("COLUMNS_FROM_TAGS", "readers", "names the column 'readers' of INGEST_ACCESS"),
        ("SOURCE", "documents", "only objects in S3 have tags"),
        ("ACCESS", "team", "which is not a declared column of type list<string>"),
        ("REQUIRE_PRINCIPALS", "perhaps", "INGEST_REQUIRE_PRINCIPALS is 'perhaps', which is neither true nor false"),
    ],
)
def test_a_wrong_variable_of_columns_is_refused(variable: str, text: str, problem: str) -> None:
    environment = {
        "INGEST_SOURCE": "s3://company/handbook",
        "INGEST_COLUMNS": '{"department": "string", "readers": "list<string>"}',
        "INGEST_COLUMNS_FROM_TAGS": "department",
        "INGEST_ACCESS": "readers",
        f"INGEST_{variable}": text,
    }
    with pytest.raises(ConfigurationError, match=re.escape(problem)):
        CorpusConfig.from_environment(environment)


@pytest.mark.parametrize(
    ("change", "variable", "message"),
    [
        ({"chunk_size": 1}, "1", "Set {chunk_size} between 50 and 16384 characters."),
        ({"chunk_overlap": -1}, None, "Set {chunk_overlap} to 0 or more, and below {chunk_size}."),
        ({"min_age_seconds": -1}, "-1", "Correct {min_age_seconds}."),
        ({"embedding_dimensions": 0}, "0", "Correct {embedding_dimensions}."),
        ({"on_unreadable": "ignore"}, "ignore", "Correct {on_unreadable}."),
        ({"follow_links": "some"}, "some", "Correct {follow_links}."),
        ({"partition_by": "shoe size"}, "shoe size", "Correct {partition_by}; LEVELS are 1 to 99, BUCKETS 1 to 9999."),
        ({"lancedb_uri": "ftp://me:hunter2@host/x"}, "ftp://me:hunter2@host/x", "Correct {lancedb_uri}."),
        ({"source": "ftp://host/x"}, "ftp://host/x", "Correct {source}."),
        ({"chunk_sise": 3}, "3", "Did you mean {chunk_size}?"),
    ],
)
def test_an_error_names_the_option_as_the_user_wrote_it(
    change: dict[str, object], variable: str | None, message: str
) -> None:
    def named(write: str) -> str:
        names = {"python": str, "environment": variable_of}
        return re.sub(r"\{(\w+)\}", lambda found: names[write](found[1]), message)

    (name,) = change
    with pytest.raises(ConfigurationError) as caught:
        CorpusConfig(**{"corpus": "docs", "source": "x", **change})  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert named("python") in str(caught.value).replace("`", "")
    assert "INGEST_" not in str(caught.value)
    assert "hunter2" not in str(caught.value)
    if variable is not None:
        with pytest.raises(ConfigurationError) as caught:
            CorpusConfig.from_environment({f"INGEST_{name.upper()}": variable})
        assert named("environment") in str(caught.value)
        assert "hunter2" not in str(caught.value)


def test_a_secret_is_not_shown() -> None:
    config = CorpusConfig(corpus="docs", source="x", database_url="host=h password=hunter2", embedding_api_key="key-1")
    assert "hunter2" not in repr(config)
    assert "key-1" not in repr(config)


def test_a_changed_copy_is_checked() -> None:
    config = CorpusConfig(corpus="docs", source="x")
    assert config.replace(chunk_size=700).chunk_size == 700
    with pytest.raises(ConfigurationError, match="chunk_size"):
        config.replace(chunk_size=1)
