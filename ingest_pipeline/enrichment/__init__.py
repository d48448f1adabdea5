"""Enriches documents: code of the user computes columns from the text.

`base` has the protocol of an enricher. `user_enrichers` calls enrichers from the parent process, and
`user_enricher_role` runs them in the child process. Imports `extensions` and the modules below it. Begin with `base`.
"""
