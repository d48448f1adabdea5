"""The LanceDB table: every call that reads or writes one.

Only this package imports `lance` and `lancedb`. `table` reads and writes a table as a sequence of versions, `changes`
has the operations of a publication, `indices` and `search` the indices and their use, `chunk_table` the columns of a
corpus, `spool` keeps vectors that are not published. The package `versions` has manifests and the marks of versions.
Imports neither `postgres` nor `saga`. Begin with `table.LanceTable`.
"""
