"""The assets of a corpus: chunks, embeddings and metadata, which one step materializes together."""
