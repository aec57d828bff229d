"""Small content, put under its name from a file that had none before.

What Linux promises and is relied on: a file made with `O_TMPFILE` has no name until `link` gives it one; it goes with
the process that holds it, however that ends; and `link` never replaces anything. So nothing has to be locked, and
nothing is left over. Where a system or a file system does not know such files, a temporary name does the same for a
little more (`benchmarks/experiments/small_files.py`).
"""

from __future__ import annotations

import os
import stat

# on other systems there is no such flag
_FLAGS = os.O_WRONLY | os.O_CLOEXEC | getattr(os, "O_TMPFILE", 0)
_KNOWN = hasattr(os, "O_TMPFILE")


def put(directory: str, path: str, data: bytes, *, permissions: int = 0) -> bool:
    """Put content under a name that nobody has.

    Args:
        directory: Where the file is made, which its group and its access rights come from.
        path: Its name, in the same file system.
        data: The content.
        permissions: Those that it gets besides what the umask leaves.

    Returns:
        Whether it is there now. When it is not nothing was left, and another way may work, or say why none does.
    """
    if not _KNOWN:
        return False
    try:
        fd = os.open(directory, _FLAGS, 0o666)
        try:
            if os.write(fd, data) != len(data):
                return False
            if permissions:
                os.fchmod(fd, stat.S_IMODE(os.fstat(fd).st_mode) | permissions)
            # a descriptor given with it has `linkat` called, which follows the link in /proc to the file itself
            os.link(f"/proc/self/fd/{fd}", path, src_dir_fd=fd, follow_symlinks=True)
        finally:
            os.close(fd)
    except OSError:
        return False
    return True
