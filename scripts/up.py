"""`make up`: a zone of your own on this machine, and a measured recording that goes through it.

Starts a zone in `.zone/`, stores a recording as one client, loads it by its URI as a second client with another store
directory, compares the two, and leaves the zone running until Ctrl-C. Everything stays in place for the next time.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType

ROOT = Path(__file__).resolve().parents[1]
KACHERY = Path(sys.executable).with_name("kachery")
RECORDING = ROOT / "tests" / "data" / "LantyerEtAl2018_170328_AB_277_ST50_C.nwb"
HOST = "127.0.0.1"
ZONE = "lab"

#: Seconds that the zone may take until it answers, the first start of a new environment on a slow disk included.
PATIENCE = 120.0


class Failed(Exception):
    """A step did not do what it should; the text says which and why."""


class Zone:
    """The zone's process and its two clients.

    Args:
        directory: Where everything is kept.
        port: Where the zone listens.
    """

    def __init__(self, directory: Path, port: int) -> None:
        self.directory = directory
        self.data = directory / "gateway"
        self.log = directory / "gateway.log"
        self.url = f"http://{HOST}:{port}"
        self._port = port
        self._process: subprocess.Popen[str] | None = None

    def variables(self, client: str) -> dict[str, str]:
        """The settings of one of the two clients."""
        return {
            "KACHERY_CLOUD_DIR": str(self.directory / client),
            "KACHERY_GATEWAY_URL": self.url,
            "KACHERY_ZONE": ZONE,
        }

    def start(self) -> None:
        """Start the zone and wait until it answers. This machine's client, the first one, is registered by that."""
        with socket.socket() as probe:
            # a zone that ended a moment ago leaves connections that are no hindrance
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, self._port))
            except OSError as error:
                raise Failed(
                    f"port {self._port} is taken ({error.strerror}): is another `make up` running? "
                    f"`make up PORT={self._port + 1}` takes the next one"
                ) from error
        self.directory.mkdir(exist_ok=True)
        arguments = ["up", "--data", str(self.data), "--host", HOST, "--port", str(self._port), "--zone", ZONE]
        show(arguments)
        with self.log.open("w") as log:
            self._process = subprocess.Popen(
                [str(KACHERY), *arguments],
                env={**os.environ, "KACHERY_CLOUD_DIR": str(self.directory / "first-client")},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        line = self._first_line()
        if not line.startswith("ready "):
            self.stop()
            raise Failed(f"the zone did not start; the end of {self.log}:\n{self.log.read_text()[-3000:]}")
        print(f"  {line}")

    def _first_line(self) -> str:
        process = self._process
        assert process is not None
        assert process.stdout is not None
        lines: list[str] = []
        stdout = process.stdout
        reader = threading.Thread(target=lambda: lines.append(stdout.readline()), daemon=True)
        reader.start()
        reader.join(PATIENCE)
        return lines[0].strip() if lines else ""

    def kachery(self, client: str, *arguments: str) -> str:
        """Run a command as one of the clients and give what it writes to stdout."""
        show(arguments)
        done = subprocess.run(
            [str(KACHERY), *arguments],
            env={**os.environ, **self.variables(client)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        if done.returncode != 0:
            raise Failed(f"kachery {arguments[0]} ended with {done.returncode}; the zone's log is {self.log}")
        print(f"  {done.stdout.strip()}")
        return done.stdout.strip()

    def wait(self) -> int:
        """Wait until the zone ends, by Ctrl-C or by itself."""
        assert self._process is not None
        return self._process.wait()

    def stop(self) -> None:
        """End the zone."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def show(arguments: list[str] | tuple[str, ...]) -> None:
    """Print a command as a person would type it."""
    print("  $ " + shlex.join(["kachery", *(_short(argument) for argument in arguments)]), flush=True)


def _short(argument: str) -> str:
    inside = argument.removeprefix(f"{Path.cwd()}{os.sep}")
    return inside if len(inside) < len(argument) else argument


def demonstrate(zone: Zone) -> None:
    """Store as one client, load as another, compare."""
    print("\n1. A zone of your own")
    zone.start()
    print("\n2. One client stores a patch-clamp recording")
    uri = zone.kachery("first-client", "store", str(RECORDING))
    print("\n3. A second client, with a directory of its own, loads it by its URI")
    path = Path(zone.kachery("second-client", "load", uri))
    print("\n4. Is it the same?")
    content = path.read_bytes()
    hash_ = hashlib.sha1(content, usedforsecurity=False).hexdigest()
    if content != RECORDING.read_bytes() or f"sha1://{hash_}" not in uri:
        raise Failed(f"{path} is not the recording that was stored")
    if zone.directory.resolve() / "second-client" not in path.resolve().parents:
        raise Failed(f"{path} is not in the second client's directory")
    print(f"  yes: {len(content):,} bytes, and their SHA-1 is the one in the URI, {hash_}")


def invite(zone: Zone) -> None:
    """Say what can be done next."""
    settings = " ".join(f"{name}={shlex.quote(value)}" for name, value in zone.variables("first-client").items())
    print(f"\nThe zone runs at {zone.url} until Ctrl-C; its log is {_short(str(zone.log))}.")
    for word in zone.log.read_text().split():
        if "/invitation/" in word:
            print(f"You are its administrator; choose a password for its pages at\n  {word}")
    print("Try next, in another terminal:\n")
    print(f"  export {settings}")
    print(f"  export PATH={shlex.quote(str(KACHERY.parent))}:$PATH")
    print("  kachery store README.md")
    print("  kachery ls")
    print(f"  kachery admin --data {shlex.quote(_short(str(zone.data)))} usage --zone {ZONE}")
    print("  kachery --help", flush=True)


def main() -> int:
    """Show how it works, then keep the zone running."""
    parser = argparse.ArgumentParser(description="Start a zone and send a recording through it.")
    parser.add_argument(
        "--directory", type=Path, default=ROOT / ".zone", help="where the zone and its clients are kept"
    )
    parser.add_argument("--port", type=int, default=8620)
    parser.add_argument("--once", action="store_true", help="end after the demonstration")
    given = parser.parse_args()

    def end(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    # set even where the shell that started us in the background had it ignored
    signal.signal(signal.SIGINT, end)
    signal.signal(signal.SIGTERM, end)
    zone = Zone(given.directory.absolute(), given.port)
    try:
        demonstrate(zone)
        invite(zone)
        if given.once:
            return 0
        code = zone.wait()
        print(f"the zone ended by itself with {code}; its log is {zone.log}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nThe zone stops; everything stays in place for the next time.")
        return 0
    except Failed as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    finally:
        zone.stop()


if __name__ == "__main__":
    sys.exit(main())
