"""A corpus as a retriever of LangChain. Needs the extra `langchain`. Begin with `retriever`."""

from ingest_pipeline.integrations.langchain.retriever import IngestPipelineRetriever

__all__ = ["IngestPipelineRetriever"]
