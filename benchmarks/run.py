"""`make bench`: measure side by side and write a table to benchmarks/results/.

Needs curl and nginx; installs the released client beside ours. Everything stays on 127.0.0.1.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import shutil
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests")]

from lines import LINES, MIB, Bench
from measure import ContenderFailed
from nginx import CONFIGURATIONS, NginxMissing, serving
from report import Line, write
from rigs.gateway import Gateway
from rigs.lab import SECRET
from rigs.release import installed, ours

RELEASE = "0.4.10"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure kachery beside the released client, curl and nginx.")
    parser.add_argument("lines", nargs="*", metavar="LINE", help="some of: " + ", ".join(LINES))
    parser.add_argument("--rounds", type=int, help="samples of each program")
    parser.add_argument("--size", type=int, default=1024, help="size of the large file in MiB")
    parser.add_argument("--huge", type=int, default=4096, help="size of the memory line's file in MiB")
    parser.add_argument("--smoke", action="store_true", help="tiny files, one round, nothing kept: does it run?")
    parser.add_argument("--scratch", type=Path, help="where to work; the file system that is measured")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    given = parser.parse_args()
    unknown = [name for name in given.lines if name not in LINES]
    if unknown:
        parser.error(f"no such line: {', '.join(unknown)}; there are {', '.join(LINES)}")
    return given


def _versions() -> dict[str, str]:
    def first_line(*command: str) -> str:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return (done.stdout or done.stderr).splitlines()[0]

    nginx = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    if nginx is None:
        raise NginxMissing("nginx is not installed; `apt-get install nginx-light` gives it")
    return {
        "kachery": importlib.metadata.version("kachery"),
        "kachery-cloud": RELEASE,
        "Python": sys.version.split()[0],
        "curl": first_line("curl", "--version").split()[1],
        "nginx": first_line(nginx, "-v").rpartition("/")[2],
    }


def main() -> int:
    """Measure the lines that were asked for."""
    given = _arguments()
    size, files, transfers, huge = given.size * MIB, 10_000, 300, given.huge * MIB
    if given.smoke:
        size, files, transfers, huge, given.rounds = 8 * MIB, 50, 10, 16 * MIB, 1

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    measured: list[Line] = []
    try:
        versions = _versions()
        with ExitStack() as stack:
            scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kachery-bench-", dir=given.scratch)))
            (scratch / "served").mkdir()
            secret = {"PROXY_SECRET": SECRET}
            gateway = stack.enter_context(Gateway(scratch / "gateway", zone="bench", environment=secret))
            nginx = {
                name: stack.enter_context(serving(scratch / "served", transfer, scratch / f"nginx-{number}"))
                for number, (name, transfer) in enumerate(CONFIGURATIONS.items())
            }
            served, transfer = next(iter(nginx.values())), next(iter(CONFIGURATIONS.values()))
            proxy = stack.enter_context(serving(served, transfer, scratch / "nginx-proxy"))
            bench = Bench(scratch, size, files, transfers, huge, ours(), installed(RELEASE), gateway, nginx, proxy)
            for name in given.lines or LINES:
                say(f"== {name}")
                line = LINES[name](bench)
                line.measure(given.rounds, say)
                measured.append(line)
                print(line.markdown(), flush=True)
    except (ContenderFailed, NginxMissing) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    if not given.smoke:
        say(f"written to {write(measured, given.results, versions)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
