"""Source files: listing them, and reading one exactly as it was listed.

`object_store` is what the rest uses: a source under a URL (S3, GCS, Azure, HTTP, a local folder). `local` reads
folders of this machine, where links, renames and clocks need care. `filters` decides by name and size which
objects are documents. Imports `types` and `errors` only. Begin with `object_store.ObjectSource`.
"""
