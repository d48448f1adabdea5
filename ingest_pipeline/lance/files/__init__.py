"""Files of a LanceDB table beside what Lance itself does with them.

`table_files` lists and removes files in the folder of a table. `flush` writes local files through to the disk, and
`spool` keeps the vectors of recorded answers until they are published. Begin with `table_files`.
"""
