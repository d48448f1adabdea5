"""Text to chunks, as a stream.

`content_defined` chooses cut points from the text around them, so that an edit changes the chunks around it and no
others. Imports `types` and `errors` only.
"""
