"""Runs examples that come with sortingview, in one process, with whichever `kachery` is first on the path.

Usage: figures.py REPLY EXAMPLE…. Writes `{"printed": {example: addresses}, "files": URIs, "view": …, "module": …}`
to REPLY: the addresses that each example printed, the URIs of files that ten threads stored with labels, as its views
do, and what a view of a sorting holds.
"""

import contextlib
import importlib.util
import io
import json
import os
import runpy
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor


def printed(directory, name):
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        runpy.run_path(os.path.join(directory, f"{name}.py"), run_name="__main__")
    return [line for line in out.getvalue().splitlines() if line.startswith("https://figurl.org/")]


def stored_by_threads(kachery):
    with tempfile.TemporaryDirectory() as directory:
        paths = []
        for number in range(30):
            paths.append(os.path.join(directory, f"{number}.jpeg"))
            with open(paths[-1], "wb") as file:
                # three of each, so that threads store the same at once
                file.write(b"%d" % (number // 3) * 1000)
        with ThreadPoolExecutor(10) as pool:
            return list(pool.map(lambda path: kachery.store_file(path, label=os.path.basename(path)), paths))


def looked_at():
    """What sortingview finds in the HDF5 file that it stored on this machine and loaded again."""
    import spikeinterface.extractors
    from sortingview.SpikeSortingView import SpikeSortingView

    recording, sorting = spikeinterface.extractors.toy_example(num_units=3, duration=4, num_segments=1, seed=0)
    view = SpikeSortingView.create(
        recording=recording,
        sorting=sorting,
        segment_duration_sec=2,
        snippet_len=(20, 20),
        max_num_snippets_per_segment=10,
        channel_neighborhood_size=3,
    )
    return {"units": view.unit_ids.tolist(), "frames": view.num_frames, "segments": view.num_segments}


def main():
    reply, *names = sys.argv[1:]
    directory = os.path.dirname(importlib.util.find_spec("examples.example_markdown").origin)
    sys.path.insert(0, directory)
    import kachery

    answer = {
        "module": kachery.__file__,
        "printed": {name: printed(directory, name) for name in names},
        "files": stored_by_threads(kachery),
        "view": looked_at(),
    }
    with open(reply, "w") as file:
        json.dump(answer, file)


if __name__ == "__main__":
    main()
