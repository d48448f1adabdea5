"""Versions of a table: how they are made without being visible, how they become visible, and who wrote them.

`manifests` stages a version under a private name and installs it under its canonical one; `manifest_objects` writes
that name in an object store, which `object_store` opens. `version_mark` records saga and database in each version, and
`store_check` tries whether an object store refuses to overwrite a version. Imports `changes`, `flush` and `storage` of
the package above, not `table`. Begin with `manifests`.
"""
