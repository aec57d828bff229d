"""Two network namespaces with a cable between them: a lab's network, and the rest of the world."""

from __future__ import annotations

import os
import shutil
import subprocess
import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

#: The name of the cable's ends.
CABLE = "cable"

#: The address of the world's end of the cable; the lab's is the next one.
WORLD = "198.18.0.1"
LAB = "198.18.0.2"

Inside = tuple[str, ...]


@contextmanager
def two_networks() -> Iterator[tuple[Inside, Inside]]:
    """Make them; gives the commands that run something in the lab and in the world. Only root can."""
    mark = uuid.uuid4().hex[:6]
    lab, world = f"kachery-lab-{mark}", f"kachery-world-{mark}"
    ip = shutil.which("ip", path=os.environ.get("PATH", os.defpath) + os.pathsep + "/usr/sbin")
    assert ip is not None, "iproute2 is not installed"
    command: str = ip

    def run(*arguments: str) -> None:
        subprocess.run([command, *arguments], check=True, capture_output=True, timeout=30)

    made = []
    try:
        for name in (world, lab):
            run("netns", "add", name)
            made.append(name)
        run("-n", world, "link", "add", CABLE, "type", "veth", "peer", "name", CABLE, "netns", lab)
        for name, address in ((world, WORLD), (lab, LAB)):
            run("-n", name, "addr", "add", f"{address}/30", "dev", CABLE)
            run("-n", name, "link", "set", CABLE, "up")
            run("-n", name, "link", "set", "lo", "up")
        yield (command, "netns", "exec", lab), (command, "netns", "exec", world)
    finally:
        # what still runs inside was ended by the test; the cable goes with its ends
        for name in made:
            run("netns", "del", name)


@contextmanager
def unplugged(inside: Inside) -> Iterator[None]:
    """Have the cable out of one of them for a while, of which nobody is told."""

    def turn(state: str) -> None:
        subprocess.run([*inside, inside[0], "link", "set", CABLE, state], check=True, capture_output=True, timeout=30)

    turn("down")
    try:
        yield
    finally:
        turn("up")
