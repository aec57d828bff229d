"""The domain of a gateway: plain functions over a connection to the database. No HTTP, no JSON."""
