"""Writes an NWB file of 2 GiB that takes little room on the disk. Runs where pynwb is installed.

It holds what a recording has: raw traces of 64 channels in one piece, nearly all of them a hole in the file; the LFP of
16 channels, compressed in chunks; 200 sorted units; 600 trials; where the animal was. Everything but the raw traces has
content. `python nwb_file.py PATH`
"""

import datetime
import sys

import h5py
import numpy as np
import pynwb
from hdmf.backends.hdf5.h5_utils import H5DataIO
from pynwb.behavior import Position, SpatialSeries
from pynwb.ecephys import LFP, ElectricalSeries

CHANNELS = 64
SAMPLES = 2 * 1024**3 // (CHANNELS * 2)

#: The second of the raw traces that has content, in samples.
WRITTEN = slice(8_000_000, 8_030_000)


def raw_second():
    return np.random.default_rng(1).integers(-2000, 2000, (WRITTEN.stop - WRITTEN.start, CHANNELS), dtype=np.int16)


def position():
    return np.cumsum(np.random.default_rng(2).normal(size=(60_000, 2)), axis=0)


def write(path):
    """Write the file."""
    random = np.random.default_rng(3)
    start = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    nwb = pynwb.NWBFile("a recording of 2 GiB", "kachery-test", start)
    probe = nwb.create_device("probe")
    group = nwb.create_electrode_group("shank", "one shank", "CA1", probe)
    for number in range(CHANNELS):
        nwb.add_electrode(x=0.0, y=0.0, z=20.0 * number, imp=1.0, location="CA1", filtering="none", group=group)
    everything = nwb.create_electrode_table_region(list(range(CHANNELS)), "all")
    some = nwb.create_electrode_table_region(list(range(16)), "every fourth")
    # replaced below; pynwb would write it out
    raw = ElectricalSeries("raw", np.zeros((1, CHANNELS), np.int16), everything, rate=30000.0)
    nwb.add_acquisition(raw)
    lfp = random.normal(size=(300_000, 16)).astype(np.float32)
    series = ElectricalSeries(
        "lfp", H5DataIO(lfp, chunks=(4096, 16), compression="gzip", compression_opts=1), some, rate=1000.0
    )
    nwb.create_processing_module("ecephys", "fields").add(LFP(series))
    where = SpatialSeries("position", position(), reference_frame="the maze", rate=60.0)
    nwb.create_processing_module("behavior", "where the animal was").add(Position(where))
    for _ in range(200):
        nwb.add_unit(spike_times=np.sort(random.uniform(0, 560, 2000)))
    for number in range(600):
        nwb.add_trial(start_time=float(number), stop_time=number + 0.5)
    with pynwb.NWBHDF5IO(path, "w") as io:
        io.write(nwb)
    with h5py.File(path, "a") as file:
        old = file["acquisition/raw/data"]
        attributes = dict(old.attrs)
        del file["acquisition/raw/data"]
        layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        layout.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        space = h5py.h5s.create_simple((SAMPLES, CHANNELS))
        parent = file["acquisition/raw"]
        h5py.h5d.create(parent.id, b"data", h5py.h5t.py_create(np.dtype(np.int16)), space, dcpl=layout)
        parent["data"].attrs.update(attributes)
        parent["data"][WRITTEN] = raw_second()


if __name__ == "__main__":
    write(sys.argv[1])
