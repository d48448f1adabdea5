"""A corpus in a plain script: ingest a folder, then search it. No key, no server and no Dagster process is needed."""

import sys

from ingest_pipeline import CorpusConfig, open_corpus

config = CorpusConfig(corpus="handbook", source=sys.argv[1], state=sys.argv[2])
with open_corpus(config) as corpus:
    print(corpus.ingest())
    for hit in corpus.search(sys.argv[3], limit=3):
        print(f"{hit.score:.3f} {hit.document} {hit.text[:60]!r}")
