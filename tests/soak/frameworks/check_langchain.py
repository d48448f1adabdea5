"""LangChain's own tests for retrievers."""

from __future__ import annotations

import pytest
from langchain_core.retrievers import BaseRetriever
from langchain_tests.integration_tests import RetrieversIntegrationTests

from ingest_pipeline.api import OpenCorpus
from ingest_pipeline.integrations.langchain import IngestPipelineRetriever


class TestIngestPipelineRetriever(RetrieversIntegrationTests):
    _corpus: OpenCorpus

    @pytest.fixture(autouse=True)
    def _opened(self, library: OpenCorpus) -> None:
        type(self)._corpus = library

    @property
    def retriever_constructor(self) -> type[BaseRetriever]:
        return IngestPipelineRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, object]:
        return {"corpus": self._corpus}

    @property
    def retriever_query_example(self) -> str:
        return "hotels receipts salaries"
