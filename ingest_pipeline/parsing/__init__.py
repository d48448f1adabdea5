"""Extracts the text of documents, in child processes that cannot harm the parent.

`formats` maps a file to its parser. `worker_pool` is the parent's side of the built-in parsers, and `worker` is the
child's program, started by its file name. `base` has the protocol of a user's parser, and `own_parsers` calls it.
Imports `extensions`, `sandbox` and the modules below them. Begin with `formats`.
"""
