"""The command line: one module for each group of commands.

`main` lists them; `_session` opens what a command needs; `_output` prints tables and JSON; `demo/` is the
demonstration. Imports everything else. Begin with `main`.
"""
