"""The LanceDB table: every call that reads or writes one.

Only this package imports `lance` and `lancedb`. `table` writes a table as a sequence of versions, and `table_reader`
reads it; `changes` has the operations of a publication, `indices` and `search` the indices and their use, `chunk_table`
the columns of a corpus. `files/` finds, flushes and spools files, `versions/` has manifests and marks, and `checks/`
what audits compare. Imports neither `postgres` nor `saga`. Begin with `table.LanceTable`.
"""
