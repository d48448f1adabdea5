"""Two corpora in one code location."""
