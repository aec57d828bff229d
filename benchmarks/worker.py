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
    """What the layout alone costs: a file under three levels of directories, whole when it can be seen, and read again.

    The cheapest way that is known (`experiments/small_files.py`), with one hash, and with nothing that a program that
    keeps promises adds: no look at the source before and after, none at whose directory it is, no hash when it is read.
    """
    import hashlib

    root = os.environ["KACHERY_CLOUD_DIR"]
    paths = [entry.path for entry in os.scandir(directory)]
    os.makedirs(f"{root}/sha1", exist_ok=True)

    def make(folder):
        try:
            os.mkdir(folder)
        except FileExistsError:
            pass
        except FileNotFoundError:
            make(folder[:-3])
            os.mkdir(folder)

    def read(path):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        data = os.read(fd, 1 << 16)
        os.close(fd)
        return data

    def put(path):
        data = read(path)
        name = hashlib.sha1(data, usedforsecurity=False).hexdigest()
        middle = f"{root}/sha1/{name[:2]}/{name[2:4]}"
        folder = f"{middle}/{name[4:6]}"
        make(middle)
        make(folder)
        fd = os.open(folder, os.O_WRONLY | os.O_TMPFILE | os.O_CLOEXEC)
        os.write(fd, data)
        os.link(f"/proc/self/fd/{fd}", f"{folder}/{name}", src_dir_fd=fd)
        os.close(fd)
        return f"{folder}/{name}"

    def work():
        for path in [put(path) for path in paths]:
            assert read(path)

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


def list_directory(uri):
    """Read what a stored directory holds."""
    import kachery

    return lambda: kachery.read_dir(uri, local_only=True)


def peak():
    """The highest resident memory of this process, in bytes."""
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    raise RuntimeError("no VmHWM in /proc/self/status")


OPERATIONS = {
    function.__name__: function
    for function in (
        store_local,
        store_and_load_local,
        file_system_alone,
        upload,
        download,
        read_range,
        load_whole,
        list_directory,
    )
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
