"""The catalog: what readers, plans and reports find in Postgres about corpora, documents and chunks.

`corpora` has the rows of corpora and generations, `binding` and `recipes` the settings that bind them.
`prepared_documents` and `chunk_ranges` write rows before they are published, `documents` publishes and reads them;
`history` reads earlier ones, and `reports` counts them. `pins` keep a version for a run, `holds` keep a document from
being ingested, and `gates` has the publications that wait. Imports `postgres.ledger` and the modules of `postgres`.
Begin with `corpora`, then `documents`.
"""
