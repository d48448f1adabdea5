"""Child processes that parse foreign files and run code of the user, with limits and without rights.

`children` starts, limits, reuses and kills them, and `folders` has their temporary folders. In the child process,
`exchange` reads requests and writes answers, and `confinement` drops rights. Imports `telemetry` and the modules below
it. Begin with `children`.
"""
