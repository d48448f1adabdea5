"""Child processes that parse foreign files and run code of the user, with limits and without rights.

`children` starts, limits, reuses and kills them, and `confinement` drops a child's rights. Imports `errors` only. Begin
with `children`.
"""
