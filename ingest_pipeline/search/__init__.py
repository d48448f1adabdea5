"""Reading at head: chunks by meaning, by words, or by both, in documents that the catalog chooses.

`search` is the interface, `filters` the conditions on documents, `rerank` makes one ranking of two, `expand` reads the
text around hits. Imports `corpus`
and the packages below it.
"""
