"""Extracts the text of documents, in child processes that cannot harm the parent.

`formats` maps a file to its parser. `worker_pool` is the parent's side of the built-in parsers, and `children` starts,
limits, keeps and kills child processes. `worker` is the child's program, started by its file name; `confinement`
removes the rights that a hostile document could use. Imports `types` and `errors` only. Begin with `formats`.

`base` has the protocol of a user's parser, `own_parsers` calls it; `extension_pool` and `extension_worker` are the two
sides of every extension that runs in a child process.
"""
