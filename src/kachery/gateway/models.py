"""The tables of a gateway.

Times are integer milliseconds since the epoch, as in the protocols. A flag is the integer 1 or it is not set: whatever
else a column may hold, by damage or by hand, closes and never opens (`services/zones.py`). Secrets of others (tokens of
sessions, of invitations) are stored hashed.

A change here needs a migration in `migrations/versions/` and a new `SCHEMA`.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKey, Index, Integer, LargeBinary, MetaData, String, Table

#: The newest migration. A database that says the same needs nothing, and alembic is not even imported.
SCHEMA = "0004"

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

users = Table(
    "users",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(200), nullable=False, unique=True),
    # scrypt; empty until the invitation has been used
    Column("password_hash", String(200)),
    Column("is_admin", Integer, nullable=False),
    Column("created", BigInteger, nullable=False),
)

invitations = Table(
    "invitations",
    metadata,
    Column("token_hash", String(64), primary_key=True),
    Column("user", String(200), ForeignKey("users.name", ondelete="CASCADE"), nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("expires", BigInteger, nullable=False),
    Column("used", BigInteger),
)

sessions = Table(
    "sessions",
    metadata,
    Column("token_hash", String(64), primary_key=True),
    Column("user", String(200), ForeignKey("users.name", ondelete="CASCADE"), nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("expires", BigInteger, nullable=False),
)

# What people say about themselves, for the protocol of kachery 2.x
profiles = Table(
    "profiles",
    metadata,
    Column("user", String(200), ForeignKey("users.name", ondelete="CASCADE"), primary_key=True),
    Column("full_name", String(200), nullable=False),
    Column("email", String(200), nullable=False),
    Column("research_description", String(2000), nullable=False),
)

# Long random texts that programs of kachery 2.x send instead of a signature
api_keys = Table(
    "api_keys",
    metadata,
    Column("id", String(16), primary_key=True),
    Column("token_hash", String(64), nullable=False, unique=True),
    Column("user", String(200), ForeignKey("users.name", ondelete="CASCADE"), nullable=False, index=True),
    # `files` or `management`
    Column("purpose", String(10), nullable=False),
    Column("label", String(200), nullable=False),
    Column("created", BigInteger, nullable=False),
)

zones = Table(
    "zones",
    metadata,
    Column("name", String(200), primary_key=True),
    Column("owner", String(200), ForeignKey("users.name"), nullable=False),
    Column("bucket", String(200), nullable=False),
    # what stands before the keys of the zone's objects, without slashes at its ends; empty for the zone `default`
    Column("directory", String(400), nullable=False),
    Column("allow_public_download", Integer),
    Column("allow_public_upload", Integer),
    # whether what resources bring stays in the bucket
    Column("keep_on_demand", Integer),
    Column("created", BigInteger, nullable=False),
)

members = Table(
    "members",
    metadata,
    Column("zone", String(200), ForeignKey("zones.name", ondelete="CASCADE"), primary_key=True),
    Column("user", String(200), ForeignKey("users.name", ondelete="CASCADE"), primary_key=True),
    Column("upload", Integer),
    Column("download", Integer),
    Column("admin", Integer),
)

clients = Table(
    "clients",
    metadata,
    Column("zone", String(200), ForeignKey("zones.name", ondelete="CASCADE"), primary_key=True),
    Column("client_id", String(64), primary_key=True),
    Column("owner", String(200), ForeignKey("users.name", ondelete="CASCADE"), nullable=False, index=True),
    Column("label", String(200), nullable=False),
    Column("created", BigInteger, nullable=False),
)

# One row for content that is, or was, in any zone: the same SHA-1 with another SHA-256 is a collision
content = Table(
    "content",
    metadata,
    Column("sha1", String(40), primary_key=True),
    Column("sha256", String(64), nullable=False, index=True),
    Column("size", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

# Other names of content; which zones have it, `files` says. One hash may have two contents where MD5 was broken
aliases = Table(
    "aliases",
    metadata,
    Column("algorithm", String(10), primary_key=True),
    Column("hash", String(64), primary_key=True),
    Column("sha1", String(40), primary_key=True),
    Column("created", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

files = Table(
    "files",
    metadata,
    Column("zone", String(200), ForeignKey("zones.name"), primary_key=True),
    Column("sha1", String(40), primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("owner", String(200), nullable=False),
    # a client asks whether any file has the size of the one that it is still hashing
    Index("ix_files_size", "zone", "size"),
    sqlite_with_rowid=False,
)

uploads = Table(
    "uploads",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("zone", String(200), ForeignKey("zones.name"), nullable=False),
    Column("sha1", String(40), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("client", String(64), nullable=False),
    Column("owner", String(200), nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("expires", BigInteger, nullable=False),
    # `open`: bytes may come; `received`: `staging` holds them all, verified
    Column("state", String(10), nullable=False),
    Column("in_parts", Integer, nullable=False),
    Column("staging", String(80)),
    Column("sha256", String(64)),
    Index("ix_uploads_wanted", "zone", "sha1", "client"),
    Index("ix_uploads_expires", "expires"),
)

# Ranges that are in an upload's staging file, [start, end)
upload_parts = Table(
    "upload_parts",
    metadata,
    Column("upload", String(32), ForeignKey("uploads.id", ondelete="CASCADE"), primary_key=True),
    Column("start", BigInteger, primary_key=True),
    Column("end", BigInteger, nullable=False),
)

# Objects whose file is gone and which are on their way to the trash
deletions = Table(
    "deletions",
    metadata,
    Column("key", String(700), primary_key=True),
    Column("created", BigInteger, nullable=False),
)

# What may happen once: nonces of registrations, signatures of deletions
nonces = Table(
    "nonces",
    metadata,
    Column("nonce", String(128), primary_key=True),
    Column("expires", BigInteger, nullable=False),
)

registrations = Table(
    "registrations",
    metadata,
    Column("code_hash", String(64), primary_key=True),
    Column("client_id", String(64), nullable=False),
    Column("zone", String(200), nullable=False),
    Column("label", String(200), nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("expires", BigInteger, nullable=False),
)

# Programs that wait for their user to say in a browser that they may act for them; no `user` as long as nobody has
device_codes = Table(
    "device_codes",
    metadata,
    Column("device_hash", String(64), primary_key=True),
    Column("user_hash", String(64), nullable=False, unique=True),
    Column("created", BigInteger, nullable=False),
    Column("expires", BigInteger, nullable=False),
    Column("user", String(200), ForeignKey("users.name", ondelete="CASCADE")),
)

# Files with a name and a visibility of their own; `sha1` as soon as their content is in the zone
shared_files = Table(
    "shared_files",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("owner", String(200), ForeignKey("users.name", ondelete="CASCADE"), nullable=False),
    Column("name", String(500), nullable=False, index=True),
    Column("file_class", String(10), nullable=False),
    Column("sha256", String(64), nullable=False, index=True),
    Column("size", BigInteger, nullable=False),
    Column("zone", String(200), ForeignKey("zones.name", ondelete="CASCADE"), nullable=False),
    Column("sha1", String(40)),
    Column("scope", String(10), nullable=False),
    Column("created", BigInteger, nullable=False),
)

# The zones whose readers may read a shared file
shared_with = Table(
    "shared_with",
    metadata,
    Column("file", String(32), ForeignKey("shared_files.id", ondelete="CASCADE"), primary_key=True),
    Column("team", String(200), primary_key=True),
)

resources = Table(
    "resources",
    metadata,
    Column("zone", String(200), ForeignKey("zones.name", ondelete="CASCADE"), primary_key=True),
    Column("name", String(200), primary_key=True),
    Column("owner", String(200), ForeignKey("users.name", ondelete="CASCADE"), nullable=False),
    Column("proxy_url", String(2000), nullable=False),
    Column("created", BigInteger, nullable=False),
)

usage = Table(
    "usage",
    metadata,
    Column("zone", String(200), primary_key=True),
    # UTC, as in 2026-11-22
    Column("day", String(10), primary_key=True),
    # empty for callers who did not say who they are
    Column("user", String(200), primary_key=True),
    Column("client", String(64), primary_key=True),
    Column("finds", BigInteger, nullable=False),
    Column("uploads", BigInteger, nullable=False),
    Column("upload_bytes", BigInteger, nullable=False),
    Column("downloads", BigInteger, nullable=False),
    Column("download_bytes", BigInteger, nullable=False),
)

# What was used of the quotas of classic channels, so that a restart gives nobody a second day
channel_counts = Table(
    "channel_counts",
    metadata,
    Column("channel", String(200), primary_key=True),
    # `download` or `upload`
    Column("direction", String(10), primary_key=True),
    Column("quota", String(200), primary_key=True),
    # of the machine's own calendar
    Column("day", String(10), primary_key=True),
    Column("files", BigInteger, nullable=False),
    Column("bytes", BigInteger, nullable=False),
)

secrets = Table(
    "secrets",
    metadata,
    Column("name", String(40), primary_key=True),
    Column("value", LargeBinary, nullable=False),
)
