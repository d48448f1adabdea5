"""The first stage of a preparation: bytes of documents become batches of chunks.

`read_stage` runs the stage, and `document_reader` turns one document into chunks. `edits` compares a large document
with head, so that only the chunks that differ continue. `extension_calls` calls the user's parsers and enrichers,
`document_columns` collects the values of columns, and `preview` keeps what Dagster shows of a document.
Begin with `read_stage`.
"""
