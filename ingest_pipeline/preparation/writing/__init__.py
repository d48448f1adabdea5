"""The third stage of a preparation: chunks and their vectors become data files and catalog rows, in no version yet.

`write_stage` writes the chunks that are new. `moves` writes the new positions of rows that an edit only moves.
"""
