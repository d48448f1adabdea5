"""Dagster resources that give assets and ops access to the engine."""
