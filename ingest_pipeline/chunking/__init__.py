"""Cuts text into chunks, as a stream.

`content_defined` chooses cut points from the text around them, so that an edit changes only the chunks around
it. `headings` finds the path of headings above each chunk. `base` has the protocol of a user's chunker, and
`own_chunker` calls it in a child process of `parsing`. Imports `parsing`, `types` and `errors` only.
"""
