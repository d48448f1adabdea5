"""A corpus at run time: its database, its table, and whether the two belong together.

`corpus.Corpus` is opened, created and read at head. `table_identity` distinguishes the table's database from copies.
Imports `postgres`, `lance` and the layers below them.
"""
