"""A corpus at run time: its database, its table, and whether the two belong together.

`corpus.Corpus` is an open corpus; `opening` opens, creates or changes it. `head_manifest` makes head visible, and
`table_identity` distinguishes the table's database from copies. Imports `postgres`, `lance` and the layers below them.
Begin with `opening`.
"""
