"""Enriches documents: the user's own code computes columns from the text.

`base` has the protocol of an enricher, `enricher_role` calls it in a child process, `own_enrichers` is the parent's
side. Imports `parsing`, `types` and `errors` only. Begin with `base`.
"""
