"""Source files: listing them, and reading one exactly as it was listed.

Other packages use `object_store`: a source at a URL of S3, GCS or Azure, or in a local folder. `local` reads folders of
this machine, where links, renames and clocks need care. `filters` decides by name and size which objects are documents.
Imports `types` and `errors` only. Begin with `object_store.ObjectSource`.
"""
