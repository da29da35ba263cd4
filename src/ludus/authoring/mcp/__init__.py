"""Tools from MCP servers: which ones (`server`), open ones (`servers`), one connection (`connection`), its wires."""
