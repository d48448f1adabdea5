"""The demonstration, and the sample documents that it writes."""
