"""Commands that serve until they are interrupted: `ui`, `mcp` and `metrics`, and the `demo` of what `ui` serves."""
