"""Cuts text into chunks, as a stream.

`content_defined` chooses cut points from the text around them, so that an edit changes only the chunks around
it. Imports `types` and `errors` only.
"""
