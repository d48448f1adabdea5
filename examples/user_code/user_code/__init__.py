"""A Dagster project with code of the user."""
