"""Reading at head: chunks by meaning, by words, or by both, in documents that the catalog chooses.

`search` is the interface, `configured_search` opens the clients of a search, `filters` are the conditions on documents,
`fusion` makes one ranking of two, `rerank_endpoint` asks a reranker, `expand` reads the text around hits. Imports
`corpus` and the packages below it.
"""
