"""The assets of a corpus: chunks, embeddings and metadata, always made together."""
