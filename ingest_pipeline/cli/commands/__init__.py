"""The commands, one module for each group of them, in packages by purpose.

`cli.main` lists the commands and imports the module of the command that runs. A module imports Dagster only if its
commands launch a run.
"""
