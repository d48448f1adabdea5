"""Cuts text into chunks, as a stream.

`content_defined` chooses cut points from the text around them, so that an edit changes only the chunks around
it. `headings` finds the path of headings above each chunk. Imports `types` and `errors` only.
"""
