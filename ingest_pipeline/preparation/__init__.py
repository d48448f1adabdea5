"""The long part of a saga: documents are read, cut into chunks, embedded and staged. Readers see none of it yet.

`Preparation` runs three stages over bounded queues, each in a package of its own: `reading/` makes chunks, `vectors/`
finds or requests their vectors, `writing/` writes data files and chunk rows. One `ChunkBatch` travels through all of
them. `spending_guard` enforces the limits on tokens. Imports `saga` and the layers below it. Begin with `prepare`.
"""
