"""Rows as table metadata, which Dagster's UI shows as plain text."""

from collections.abc import Mapping, Sequence

import dagster as dg


def table(columns: Mapping[str, str], rows: Sequence[Mapping[str, str | int]]) -> dg.TableMetadataValue:
    """A table, which may have no rows.

    Args:
        columns: Type of each column, by name.
        rows: Values by column name.
    """
    schema = dg.TableSchema(columns=[dg.TableColumn(name, kind) for name, kind in columns.items()])
    return dg.MetadataValue.table([dg.TableRecord(dict(row)) for row in rows], schema=schema)
