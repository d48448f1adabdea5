"""Changes of columns: documents whose chunks and vectors stay as they are, while their columns change.

`column_changes` publishes them without embedding. `reread` computes columns again that come from code of the user, and
`column_guard` refuses settings that would take columns from a corpus until that is confirmed. Begin with
`column_changes`.
"""
