"""A lab machine's own daemon: it connects outwards, stays connected, and brings the machine's files when asked."""
