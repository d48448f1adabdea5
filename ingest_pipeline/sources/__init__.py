"""Source files: listing them, and reading one exactly as it was listed.

Other packages use `object_store.ObjectSource`, which reads a local folder with `local` (and `local_listing`,
`local_files`), where links, renames and clocks need care, or S3, Google Cloud Storage and Azure with `bucket`.
`filters` decides by name and size which objects are documents. Imports `columns`, `types` and `errors` only. Begin with
`object_store`.
"""
