"""A corpus as part of other programs, one package for each.

`mcp` serves agents; `langchain` and `llamaindex` are retrievers. Each needs an extra of the same name. They read at
head through the Python API, `ingest_pipeline.api`, and write nothing. Begin with `mcp.server`, or with the module of
a retriever.
"""
