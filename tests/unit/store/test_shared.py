"""Several users in one Unix group and one store directory; each of them a process with a user id of its own."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from rigs import everybody

if TYPE_CHECKING:
    from collections.abc import Iterator

# nobody's on any machine; the tests are run by root
GROUP, ANNA, BORIS, STRANGER = 54_100, 54_101, 54_102, 54_103

LARGE = b"large\n" * 200_000
BEGIN = """
from kachery.store import Store, keys
from rigs import everybody
LARGE = b"large\\n" * 200_000
"""

UMASKS = [0o022, 0o077]


def sha1(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


class Lab:
    """A directory that a group shares, and homes for its members."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.store = top / "store"
        self.variables: dict[str, str] = {}
        top.chmod(0o755)
        for user in (ANNA, BORIS, STRANGER):
            home = top / str(user)
            home.mkdir()
            os.chown(home, user, GROUP)

    def share(self, mode: int = 0o2770) -> None:
        self.store.mkdir()
        os.chown(self.store, ANNA, GROUP)
        self.store.chmod(mode)

    def run(self, user: int, code: str, umask: int = 0o022) -> str:
        python, paths = everybody.python()
        variables = {
            **paths,
            "PATH": os.defpath,
            "HOME": str(self.top / str(user)),
            "KACHERY_CLOUD_DIR": str(self.store),
            **self.variables,
        }
        done = subprocess.run(
            [python, "-c", f"{BEGIN}\n{code}"],
            env=variables,
            cwd="/",
            user=user,
            group=GROUP if user != STRANGER else STRANGER,
            extra_groups=[],
            umask=umask,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


@pytest.fixture
def lab() -> Iterator[Lab]:
    # pytest's own directory is private to root
    top = Path(tempfile.mkdtemp(prefix="kachery-lab-", dir="/tmp"))
    yield Lab(top)
    shutil.rmtree(top)


@pytest.mark.parametrize("umask", UMASKS)
def test_what_one_makes_another_can_use_and_add_to(lab: Lab, umask: int) -> None:
    lab.share()
    lab.run(ANNA, "s = Store(); s.add_bytes(b'small'); s.add_bytes(LARGE); s.mutables.set('@a/b', 'anna')", umask)
    lab.run(
        ANNA,
        "import os; path = os.path.expanduser('~/linked'); open(path, 'w').write('linked'); Store().link(path)",
        0o022,
    )

    lab.run(
        BORIS,
        """
s = Store()
for data in (b"small", LARGE, b"linked"):
    found = s.find(__import__("hashlib").sha1(data).hexdigest())
    assert found and open(found.path, "rb").read() == data, data
assert s.mutables.get("@a/b") == "anna"
s.mutables.set("@a/b", "boris")
s.mutables.set("@a/@c/d", "boris")
s.add_bytes(b"small")
s.add_bytes(b"boris")
path = __import__("os").path.expanduser("~/own")
open(path, "w").write("linked")
s.link(path)
""",
        umask,
    )

    assert lab.run(ANNA, "print(Store().mutables.get('@a/b'))", umask) == "boris"
    for path in lab.store.rglob("*"):
        status = path.stat()
        assert status.st_gid == GROUP, path
        wanted = 0o2070 if path.is_dir() else 0o060
        assert stat.S_IMODE(status.st_mode) & wanted == wanted, (path, oct(status.st_mode))


@pytest.mark.parametrize("umask", UMASKS)
def test_all_over_a_store_blobs_meet_in_one_directory(lab: Lab, umask: int) -> None:
    # two hashes with the same first three pairs, in the same folders
    lab.share()
    lab.run(ANNA, "s = Store(); s.layout.make_directory(str(s.root / 'sha1/b9/71/c6'))", umask)
    lab.run(BORIS, "Store().add_bytes(b'test-content\\n')", umask)

    assert (lab.store / "sha1/b9/71/c6/b971c6ef19b1d70ae8f0feb989b106c319b36230").exists()


@pytest.mark.parametrize("umask", UMASKS)
def test_one_continues_what_another_began_to_receive(lab: Lab, umask: int) -> None:
    lab.share()
    hash_ = sha1(LARGE)
    lab.run(
        ANNA,
        f"""
data = LARGE
with Store().receive({hash_!r}, len(data)) as incoming:
    incoming.write(0, data[:500000])
    incoming.mark(0, 500000)
""",
        umask,
    )
    lab.run(
        BORIS,
        f"""
data = LARGE
with Store().receive({hash_!r}, len(data)) as incoming:
    assert incoming.held == 500000
    incoming.write(500000, data[500000:])
    incoming.mark(500000, len(data))
    incoming.finish()
assert Store().find({hash_!r})
""",
        umask,
    )
    assert list((lab.store / "tmp").iterdir()) == []


@pytest.mark.parametrize("umask", UMASKS)
def test_each_user_has_keys_of_their_own(lab: Lab, umask: int) -> None:
    lab.share()
    create = "print(keys.load_or_create().client_id)"
    anna, boris = lab.run(ANNA, create, umask), lab.run(BORIS, create, umask)

    assert anna != boris
    assert lab.run(ANNA, "print(keys.load().client_id)") == anna
    assert list(lab.store.rglob("*.pem")) == []
    for user in (ANNA, BORIS):
        (private,) = (lab.top / str(user)).rglob("private.pem")
        assert stat.S_IMODE(private.stat().st_mode) == 0o600
        assert private.stat().st_uid == user
        # nobody of the group may put another key there
        assert stat.S_IMODE(private.parent.stat().st_mode) == 0o700


def test_a_key_that_the_group_shares_is_used(lab: Lab) -> None:
    lab.share()
    shared = lab.run(
        ANNA,
        """
from kachery.signing import ClientKeys
made = ClientKeys.generate()
path = Store().root / "private.pem"
path.write_text(made.private_pem())
path.chmod(0o640)
print(made.client_id)
""",
    )
    assert lab.run(BORIS, "print(keys.load().client_id)") == shared
    assert lab.run(BORIS, "print(keys.load_or_create().client_id)") == shared


def test_multi_user_asks_for_the_same_anywhere(lab: Lab) -> None:
    lab.variables["KACHERY_CLOUD_MULTI_USER"] = "1"
    lab.top.chmod(0o1777)
    lab.run(ANNA, "Store().add_bytes(b'one')", 0o077)
    lab.run(BORIS, "s = Store(); assert s.find(s.add_bytes(b'one')); s.add_bytes(b'two')", 0o077)

    for path in lab.store.rglob("*"):
        wanted = 0o2070 if path.is_dir() else 0o060
        assert stat.S_IMODE(path.stat().st_mode) & wanted == wanted, path


def test_nothing_is_shared_that_nobody_asked_to_share(lab: Lab) -> None:
    lab.share(0o755)
    lab.run(ANNA, "Store().add_bytes(b'one'); keys.load_or_create()", 0o022)

    for path in lab.store.rglob("*"):
        assert not path.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH), path
    lab.run(BORIS, "assert Store().find(__import__('hashlib').sha1(b'one').hexdigest())")
    message = lab.run(
        BORIS,
        """
from kachery.errors import NotAllowed
for use in (lambda: Store().add_bytes(b"two"), lambda: Store().mutables.set("a", "b"), keys.load_or_create):
    try:
        use()
    except NotAllowed as error:
        print(error)
    else:
        raise AssertionError("it was allowed")
""",
    )
    assert message.count("Permission denied") == 3
    assert message.count("check the owner") == 3


def test_who_may_not_look_is_told_so(lab: Lab) -> None:
    lab.share()
    lab.run(ANNA, "Store().add_bytes(b'one')")
    lab.run(
        STRANGER,
        """
from kachery.errors import NotAllowed
for use in (lambda: Store().add_bytes(b"two"), lambda: Store().link("/etc/passwd")):
    try:
        use()
    except NotAllowed:
        continue
    raise AssertionError("it was allowed")
assert Store().find(__import__("hashlib").sha1(b"one").hexdigest(), reasons=(reasons := [])) is None
assert "Permission denied" in reasons[0], reasons
""",
    )


def test_another_users_damaged_blob_is_not_handed_out(lab: Lab) -> None:
    lab.share(0o755)
    lab.run(ANNA, "Store().add_bytes(b'right')")
    path = lab.store / "sha1" / sha1(b"right")[:2] / sha1(b"right")[2:4] / sha1(b"right")[4:6] / sha1(b"right")
    path.write_bytes(b"wrong")

    lab.run(
        BORIS,
        f"""
reasons = []
assert Store().find({sha1(b"right")!r}, reasons=reasons) is None
assert "damaged" in reasons[0], reasons
""",
    )
