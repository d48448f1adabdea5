"""Worker processes that share the documents of one run: `ingest --workers N`.

The run compares the source with the catalog once, cuts what differs into `parts` by key, and its `pool` hands them out.
Each `worker` ingests its parts like a run of its own, in groups of one saga each, and sends back what it published. The
run alone decides, reports and counts. Imports what `ingestion.ingest` imports. Begin with `pool`.
"""
