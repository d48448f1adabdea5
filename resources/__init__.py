"""The engine, lent to Dagster."""
