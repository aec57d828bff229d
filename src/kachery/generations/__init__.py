"""The names that one generation of kachery had and others did not: `classic` (0.x) and `second` (2.x)."""
