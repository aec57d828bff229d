"""The `kachery_cloud` module, as programs written for releases 0.4.2 to 0.4.10 know it, standing on `kachery`.

Names, signatures, results, URIs and files on disk are those of the releases. Three things are different on purpose:

* Nothing is made or contacted by importing this module, and no public host is asked that nobody named.
* A load gives `None` when nobody has the file *and* when nobody who has it can be reached or this machine is not set up
  to ask, and says why in a warning on the log. What came and is wrong, what a zone refuses, and a full disk are always
  errors. So is every failure to store.
* Errors are those of `kachery.errors`; each is also the builtin that fits.

The module of a function often has the function's name. As in the releases, `kachery_cloud.load_file` is the function,
and `from kachery_cloud.load_file import …` reaches the module.
"""

from . import core, mutable_local, zenodo_upload
from ._custom_storage_backend import set_custom_storage_backend
from ._sha1_of_dict import sha1_of_dict
from .admin_delete_file import admin_delete_file
from .cat_file import cat_file
from .core import (
    load_json,
    load_npy,
    load_pkl,
    load_text,
    store_json,
    store_json_local,
    store_npy,
    store_npy_local,
    store_pkl,
    store_pkl_local,
    store_text,
    store_text_local,
)
from .get_client_id import get_client_id
from .get_kachery_cloud_dir import get_kachery_cloud_dir, use_sandbox
from .init import get_client_info, init
from .link_file import link_file
from .load_bytes import load_bytes
from .load_file import load_file, load_file_info
from .mutable_local import (
    delete_mutable_folder_local,
    delete_mutable_local,
    get_mutable_local,
    set_mutable_local,
)
from .request_file import request_file
from .store_file import store_file
from .store_file_local import store_file_local
from .TemporaryDirectory import TemporaryDirectory
from .zenodo_upload import initiate_zenodo_upload

__all__ = [
    "TemporaryDirectory",
    "admin_delete_file",
    "cat_file",
    "core",
    "delete_mutable_folder_local",
    "delete_mutable_local",
    "get_client_id",
    "get_client_info",
    "get_kachery_cloud_dir",
    "get_mutable_local",
    "init",
    "initiate_zenodo_upload",
    "link_file",
    "load_bytes",
    "load_file",
    "load_file_info",
    "load_json",
    "load_npy",
    "load_pkl",
    "load_text",
    "mutable_local",
    "request_file",
    "set_custom_storage_backend",
    "set_mutable_local",
    "sha1_of_dict",
    "store_file",
    "store_file_local",
    "store_json",
    "store_json_local",
    "store_npy",
    "store_npy_local",
    "store_pkl",
    "store_pkl_local",
    "store_text",
    "store_text_local",
    "use_sandbox",
    "zenodo_upload",
]
