"""The pages that people use: rendered on the server, no script."""
