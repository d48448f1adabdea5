"""The configuration of a corpus.

`options` declares each option once: name, default, description, check. `corpus_config.CorpusConfig` is the value that
everything else takes; `environment` reads it from `INGEST_*`. The component's YAML is another view of the same options.
`spending_limits` are the limits on chunks and tokens, `prices` the prices of models: no price is built in. Imports the
leaf packages and `types`. Begin with `options`.
"""
