"""The configuration of a corpus.

`options` declares each option once: name, default, description, check. The other packages take a
`corpus_config.CorpusConfig`, which `environment` reads from `INGEST_*`. The component's YAML has the same options.
`spending_limits` has the limits on chunks and tokens, and `prices` reads the prices of models, of which none is built
in. Imports the packages of one outside system each, and those below them. Begin with `options`.
"""
