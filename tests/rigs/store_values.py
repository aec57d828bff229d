"""Stores many values with the `kachery_cloud` that is installed beside this interpreter. Runs in every environment.

`main` reads a pickled list of `(function, arguments, keyword arguments)` from stdin and writes a JSON list to the file
named by its only argument: what each call gave, or `{"error": …}`. An `Array` among the arguments becomes a numpy
array, a `File` the path of a file with that content.
"""

import json
import pickle
import sys
import tempfile
from collections import namedtuple
from pathlib import Path

Point = namedtuple("Point", ["x", "y"])
Array = namedtuple("Array", ["dtype", "shape", "order", "data"])
File = namedtuple("File", ["name", "content"])


def made(value, scratch):
    """The value that stands for itself, or what stands for something else."""
    if isinstance(value, Array):
        import numpy

        flat = numpy.frombuffer(value.data, dtype=numpy.dtype(value.dtype))
        return numpy.array(flat.reshape(value.shape), order=value.order)
    if isinstance(value, File):
        path = Path(tempfile.mkdtemp(dir=scratch)) / value.name
        path.write_bytes(value.content)
        return str(path)
    return value


def main():
    import kachery_cloud

    calls = pickle.load(sys.stdin.buffer)
    results = []
    with tempfile.TemporaryDirectory() as scratch:
        for function, args, kwargs in calls:
            arguments = [made(item, scratch) for item in args]
            try:
                results.append(getattr(kachery_cloud, function)(*arguments, **kwargs))
            except Exception as error:
                results.append({"error": f"{type(error).__name__}: {error}"[:200]})
    Path(sys.argv[1]).write_text(json.dumps(results))
