"""Migrations of the gateway's database, applied by `kachery up` when it starts."""
