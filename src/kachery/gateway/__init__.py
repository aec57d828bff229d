"""The server of zones: identity, permissions, files, transfers, and the pages that people use."""
