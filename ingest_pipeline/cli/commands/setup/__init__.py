"""Commands for the set-up of a project: `init`, `doctor` and `completion`."""
