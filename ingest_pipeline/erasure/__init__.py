"""Erasure: removes documents from both stores, in every place and version, and proves it by a search.

`erase` is the whole operation, which any process can finish: `unfinished` does so after a death, and erases documents
again that a restored backup brought back. `table` cleanses one LanceDB table, `fingerprints` recognises parts of a text
by their hashes, and `remains` looks for them in files and tables. Imports `maintenance` and the packages below it.
Begin with `erase`.
"""
