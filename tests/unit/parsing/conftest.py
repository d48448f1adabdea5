"""Samples of every format, written once for each file of tests."""

import pytest

from ingest_pipeline.cli.demo.sample_documents import write_samples


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in write_samples(tmp_path_factory.mktemp("samples"))}
