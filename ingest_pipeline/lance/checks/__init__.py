"""Checks of a table: whether its files can be read, and whether its rows are those that the catalog has.

`damage` distinguishes a damaged file from a store that does not answer. `fingerprints` and `column_audit` turn rows
into a few numbers for each document, which an audit compares with those of the catalog. Imports `changes` of the
package above, not `table`. Begin with `damage`.
"""
