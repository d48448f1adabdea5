"""What is made: chunks, embeddings and metadata of a corpus, always together."""
