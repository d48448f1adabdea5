"""The MCP server of a corpus, for agents: five tools that read, and change nothing.

`server` defines the tools, `answers` what they return, `tokens` who may call them over HTTP, and `serve` runs a server
over stdio or HTTP. Needs the extra `mcp`. Begin with `server`.
"""
