"""Commands that read a corpus and change nothing: `search`, `eval` and `status`."""
