"""Commands that keep a corpus sound or bring it back: its health, its history, its removal.

`maintain` and `sweep`, `audit`, `recover`, `history` and `rollback`, `erase`, and `corpora`, `relocate` and `drop`.
"""
