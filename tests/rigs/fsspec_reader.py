"""Makes files and reads `kachery://` URIs with the libraries that people use. Runs where those are installed.

`python fsspec_reader.py make NAME PATH` and `python fsspec_reader.py read NAME URI`, which prints JSON.
"""

import json
import os
import sys

import numpy as np


def table():
    import pandas as pd

    random = np.random.default_rng(5)
    return pd.DataFrame(
        {"unit": np.arange(50_000), "rate": random.normal(size=50_000), "area": ["CA1", "CA3"] * 25_000}
    )


def field():
    import xarray as xr

    values = np.random.default_rng(6).normal(size=(40, 300, 200))
    return xr.Dataset(
        {"lfp": (("trial", "time", "channel"), values)}, coords={"trial": np.arange(40)}, attrs={"rat": "a"}
    )


def make(name, path):
    if name == "h5py":
        import h5py

        with h5py.File(path, "w") as file:
            file["a"] = np.random.default_rng(7).normal(size=(2000, 1000))
            file.create_dataset("b/c", data=np.arange(1_000_000), chunks=(50_000,), compression="gzip")
    elif name == "nwb":
        import nwb_file

        nwb_file.write(path)
    elif name == "csv":
        table().to_csv(path, index=False)
    elif name == "csv.gz":
        table().to_csv(path, index=False, compression="gzip")
    elif name == "parquet":
        table().to_parquet(path, row_group_size=5000)
    elif name == "netcdf":
        field().to_netcdf(path, engine="h5netcdf")
    elif name == "zarr.zip":
        import zarr

        with zarr.storage.ZipStore(path, mode="w") as store:
            group = zarr.create_group(store)
            group.create_array("x", data=np.arange(1_000_000).reshape(1000, 1000), chunks=(100, 100))
            group.attrs["rat"] = "b"
    elif name == "zarr":
        field().to_zarr(path, zarr_format=3, consolidated=True)
    else:
        raise ValueError(name)


def nearly(found, expected):
    np.testing.assert_array_equal(found, expected)
    return True


def read(name, uri):
    import fsspec

    if name == "h5py":
        import h5py

        random = np.random.default_rng(7).normal(size=(2000, 1000))
        with fsspec.open(uri) as opened, h5py.File(opened) as file:
            assert nearly(file["a"][1500:1510], random[1500:1510])
            assert nearly(file["b/c"][123_456:123_460], np.arange(123_456, 123_460))
            return {"names": sorted(file)}
    if name == "nwb":
        import h5py
        import nwb_file
        import pynwb

        with fsspec.open(uri) as opened, pynwb.NWBHDF5IO(file=h5py.File(opened, "r"), mode="r") as io:
            nwb = io.read()
            where = nwb.processing["behavior"]["Position"]["position"].data[:]
            assert nearly(where, nwb_file.position())
            return {"identifier": nwb.identifier, "raw": list(nwb.acquisition["raw"].data.shape)}
    if name == "nwb raw":
        import h5py
        import nwb_file
        import pynwb

        with fsspec.open(uri) as opened, pynwb.NWBHDF5IO(file=h5py.File(opened, "r"), mode="r") as io:
            assert nearly(io.read().acquisition["raw"].data[nwb_file.WRITTEN], nwb_file.raw_second())
            return {}
    if name in ("csv", "csv.gz", "parquet"):
        import pandas as pd

        found = pd.read_parquet(uri) if name == "parquet" else pd.read_csv(uri, compression="infer")
        pd.testing.assert_frame_equal(found, table(), check_dtype=False)
        return {"rows": len(found)}
    if name == "parquet column":
        import pandas as pd

        return {"rows": len(pd.read_parquet(uri, columns=["unit"], filters=[("unit", "<", 100)]))}
    if name == "netcdf":
        import xarray as xr

        with fsspec.open(uri) as opened, xr.open_dataset(opened, engine="h5netcdf") as found:
            assert nearly(found.lfp[3, :10, 5].values, field().lfp[3, :10, 5].values)
            return {"rat": found.attrs["rat"]}
    if name == "netcdf dask":
        import xarray as xr

        with fsspec.open(uri) as opened, xr.open_dataset(opened, engine="h5netcdf", chunks={"trial": 10}) as found:
            mean = found.lfp.mean("time").compute(scheduler="processes", num_workers=2)
            np.testing.assert_allclose(mean.values, field().lfp.mean("time").values)
            return {"trials": mean.sizes["trial"]}
    if name == "dask":
        import dask.dataframe as dd

        found = dd.read_csv(uri, blocksize=500_000)
        sums = found.rate.sum().compute(scheduler="processes", num_workers=2)
        np.testing.assert_allclose(sums, table().rate.sum())
        return {"several": found.npartitions > 1}
    if name == "zarr.zip":
        import zarr

        fs, _ = fsspec.url_to_fs(f"zip::{uri}")
        store = zarr.storage.FsspecStore.from_mapper(fs.get_mapper(""), read_only=True)
        group = zarr.open_group(store, mode="r")
        assert nearly(group["x"][500:502, 7], [500_007, 501_007])
        return {"rat": group.attrs["rat"]}
    if name == "zarr":
        import xarray as xr
        import zarr

        group = zarr.open_group(uri, mode="r")
        assert nearly(group["lfp"][3, :10, 5], field().lfp[3, :10, 5].values)
        with xr.open_zarr(uri) as found:
            assert nearly(found.lfp[7].values, field().lfp[7].values)
        try:
            zarr.open_group(uri, mode="a").create_array("y", shape=(1,), dtype="i4")
        except Exception as error:
            return {"rat": group.attrs["rat"], "writing": f"{type(error).__name__}: {error}"}
    raise ValueError(name)


if __name__ == "__main__":
    verb, kind, place = sys.argv[1:]
    if verb == "make":
        make(kind, place)
    else:
        print(json.dumps(read(kind, place)), flush=True)
        # pyarrow's threads now and then abort an interpreter that ends beside them, whoever's files they have read
        os._exit(0)
