"""Golden sets: questions with what a search must find, and how well searches find it.

`golden_set` reads the questions of a file, `scores` scores a table, and `evaluate` does so at any version. May import
`search`, `preparation` and what is below them. Begin with `evaluate`.
"""
