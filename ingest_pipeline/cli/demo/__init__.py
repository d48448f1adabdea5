"""The demonstration, and the documents it makes for itself."""
