"""Child processes that parse foreign files and run code of the user, with limits and without rights.

`children` starts, limits, reuses and kills them, `folders` has their temporary folders, and `confinement` drops their
rights. Imports `errors` only. Begin with `children`.
"""
