"""One operation of the client that is installed beside this interpreter, timed from within.

    worker.py OPERATION ARGUMENT… REPORT

Each operation is done with something tiny first, so that what a program imports at its first call is not taken for the
speed of its calls; the time of the whole process shows it. Runs in environments of other releases too, so it uses
nothing of this tree but what is installed. The report is JSON: `wall` in seconds, `peak` in bytes.
"""

import json
import os
import sys
import tempfile
import time


def _with_tiny_file(store):
    with tempfile.NamedTemporaryFile() as stream:
        stream.write(os.urandom(64))
        stream.flush()
        store(stream.name)


def store_local(path):
    """Store one file in the store directory."""
    import kachery_cloud

    _with_tiny_file(kachery_cloud.store_file_local)
    return lambda: kachery_cloud.store_file_local(path)


def store_and_load_local(directory):
    """Store every file of a directory, then load all of them by their URIs."""
    import kachery_cloud

    paths = [entry.path for entry in os.scandir(directory)]

    def work():
        for uri in [kachery_cloud.store_file_local(path) for path in paths]:
            assert kachery_cloud.load_file(uri, local_only=True)

    return work


def file_system_alone(directory):
    """What the layout alone costs: a file under three levels of directories, moved into its place, and read again."""
    import hashlib

    root = os.environ["KACHERY_CLOUD_DIR"]
    paths = [entry.path for entry in os.scandir(directory)]

    def put(path):
        with open(path, "rb", buffering=0) as stream:
            data = stream.read()
        name = hashlib.sha1(data, usedforsecurity=False).hexdigest()
        folder = f"{root}/sha1/{name[:2]}/{name[2:4]}/{name[4:6]}"
        os.makedirs(folder, exist_ok=True)
        with open(f"{folder}/{name}.tmp", "xb", buffering=0) as stream:
            stream.write(data)
        os.rename(f"{folder}/{name}.tmp", f"{folder}/{name}")
        return f"{folder}/{name}"

    def work():
        for path in [put(path) for path in paths]:
            with open(path, "rb", buffering=0) as stream:
                assert len(stream.read()) == os.fstat(stream.fileno()).st_size

    return work


def upload(path):
    """Store one file in the zone."""
    import kachery_cloud

    _with_tiny_file(kachery_cloud.store_file)
    return lambda: kachery_cloud.store_file(path)


def download(tiny, *uris):
    """Load files from the zone, one after the other."""
    import kachery_cloud

    assert kachery_cloud.load_file(tiny)

    def work():
        for uri in uris:
            assert kachery_cloud.load_file(uri)

    return work


def read_range(tiny, uri, start, count):
    """Read some bytes of a file that stays in the zone."""
    import kachery

    with kachery.open(tiny) as stream:
        stream.read()

    def work():
        with kachery.open(uri) as stream:
            stream.seek(int(start))
            assert len(stream.read(int(count))) == int(count)

    return work


def load_whole(tiny, uri):
    """Load one file through our own API."""
    import kachery

    kachery.load_file(tiny)
    return lambda: kachery.load_file(uri)


def peak():
    """The highest resident memory of this process, in bytes."""
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    raise RuntimeError("no VmHWM in /proc/self/status")


OPERATIONS = {
    function.__name__: function
    for function in (store_local, store_and_load_local, file_system_alone, upload, download, read_range, load_whole)
}


def main():
    """Prepare, run and time the operation."""
    name, *arguments, report = sys.argv[1:]
    work = OPERATIONS[name](*arguments)
    start = time.perf_counter()
    work()
    wall = time.perf_counter() - start
    with open(report, "w") as stream:
        json.dump({"wall": wall, "peak": peak()}, stream)


if __name__ == "__main__":
    main()
