"""The long part of a saga: documents are read, cut, embedded and staged, and no reader sees any of it.

`read` makes chunks of one document, `vectors` finds their vectors or buys them, `prepare` writes them into files of
no version yet. Imports `saga` and what lies below it. Begin with `prepare`.
"""
