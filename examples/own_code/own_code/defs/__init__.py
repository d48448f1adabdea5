"""Components of the project."""
