"""A corpus as a retriever of LlamaIndex. Needs the extra `llamaindex`. Begin with `retriever`."""

from ingest_pipeline.integrations.llamaindex.retriever import IngestPipelineRetriever

__all__ = ["IngestPipelineRetriever"]
