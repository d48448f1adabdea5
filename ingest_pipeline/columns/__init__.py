"""Columns of the user's: their declaration, their types, and the sources from which a document's values come.

Begin with `declaration`: which columns a corpus has, and how their values are checked. `values` converts one value,
`sources` reads values from the key, the object's metadata, front matter and sidecars. This package opens neither files
nor connections: other packages pass it the text. Imports only values and errors.
"""
