"""The options of a corpus, each declared once with its name, default, description and check.

One module for each part of docs/reference/configuration.md declares the options of one subject. `corpus_options` makes
one model of them and checks options that depend on each other; `checks` gives errors about options the form that
pydantic collects. Begin with `corpus_options`.
"""
