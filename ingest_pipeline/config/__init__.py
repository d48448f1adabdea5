"""The configuration of a corpus.

`options/` declares each option once: name, default, description, check. The other packages take a
`corpus_config.CorpusConfig`. `environment` reads one from `INGEST_*`, and `project` from a configuration file or a
Dagster project. The component's YAML has the same options. `spending_limits` has the limits on chunks and tokens, and
`prices` reads the prices of models, of which none is built in. Imports the packages of one outside system each, and
those below them. Begin with `options.corpus_options`.
"""
