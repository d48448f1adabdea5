"""Extracts the text of documents, in child processes that cannot harm the parent.

`built_in_parsers` lists the formats that this package reads and the parser of each: add a parser to the package there.
`worker_pool` is the parent's side of these parsers, and `worker` is the child's program, started by its file name.

A parser of the user implements the protocol in `base`. `user_parsers` calls it from the parent process, and
`user_parser_role` runs it in the child process. Imports `extensions`, `sandbox` and the modules below them. Begin with
`built_in_parsers`.
"""
