"""The long part of a saga: documents are read, cut into chunks, embedded and staged. Readers see none of it yet.

`Preparation` runs three stages over bounded queues: `read_stage` makes chunks, `embed_stage` finds or requests their
vectors, `write_stage` writes data files and chunk rows. One `ChunkBatch` travels through all three. `vectors` decides
where a vector comes from, `requests` embeds and records, `spending_guard` enforces the limits on tokens. Imports `saga`
and the layers below it. Begin with `prepare`.
"""
