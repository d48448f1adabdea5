"""A folder for each corpus."""
