"""A corpus as part of other programs, one package for each.

`mcp` serves agents; `langchain` and `llamaindex` are retrievers. They read at head through the Python API,
`ingest_pipeline.api`. `prometheus` serves the figures of the catalog. Each needs an extra, and writes nothing. Begin
with `mcp.server`, or with the module of a retriever.
"""
