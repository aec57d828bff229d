"""The names, signatures and module paths of the releases; an import that does nothing."""

from __future__ import annotations

import importlib
import inspect
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import kachery_cloud

if TYPE_CHECKING:
    from pathlib import Path

# as `inspect.signature` gives them for 0.4.10, without the annotations
SIGNATURES = {
    "TemporaryDirectory": "(*, remove=True, prefix='tmp')",
    "admin_delete_file": "(uri)",
    "cat_file": "(uri)",
    "delete_mutable_folder_local": "(key)",
    "delete_mutable_local": "(key)",
    "get_client_id": "(generate_if_missing=False)",
    "get_client_info": "()",
    "get_kachery_cloud_dir": "(*, respect_sandbox=True)",
    "get_mutable_local": "(key, default_value=None)",
    "init": "()",
    "initiate_zenodo_upload": "(*, author, affiliation, title, description, sandbox=True)",
    "link_file": "(filename, *, label=None)",
    "load_bytes": "(uri, start, end, *, write_to_stdout=False)",
    "load_file": "(uri, *, verbose=False, local_only=False, dest=None, _get_info=False, do_request=None)",
    "load_file_info": "(uri)",
    "load_json": "(uri, *, local_only=False)",
    "load_npy": "(uri, *, local_only=False)",
    "load_pkl": "(uri, *, local_only=False)",
    "load_text": "(uri, *, local_only=False)",
    "request_file": "(uri, *, timeout_sec, ignore_local=False, ignore_bucket=False, resource_url=None)",
    "set_custom_storage_backend": "(backend)",
    "set_mutable_local": "(key, value)",
    "sha1_of_dict": "(x)",
    "store_file": "(filename, *, label=None, cache_locally=False, local=False)",
    "store_file_local": "(filename, *, label=None, reference=None, store_file_dir=None, store_file_prefix=None)",
    "store_json": "(x, *, separators=(',', ':'), indent=None, label=None, cache_locally=False, local=False)",
    "store_json_local": "(x, *, separators=(',', ':'), indent=None, label=None)",
    "store_npy": "(array, *, label=None, cache_locally=False, local=False)",
    "store_npy_local": "(array, label=None)",
    "store_pkl": "(x, *, label=None, cache_locally=False, local=False)",
    "store_pkl_local": "(x, label=None)",
    "store_text": "(text, *, label=None, cache_locally=False, local=False)",
    "store_text_local": "(text, label=None)",
    "use_sandbox": "(use=True)",
}

MODULES = [
    ("TemporaryDirectory", "TemporaryDirectory"),
    ("_client_keys", "_get_client_keys_hex"),
    ("_client_keys", "_sign_message"),
    ("_client_keys", "_sign_message_as_client"),
    ("_client_keys", "_verify_signature"),
    ("_custom_storage_backend", "get_custom_storage_backend"),
    ("_get_kachery_gateway_url", "_get_kachery_gateway_url"),
    ("_json_stringify_deterministic", "_json_stringify_deterministic"),
    ("_kachery_gateway_request", "_kachery_gateway_request"),
    ("_load_github_file", "_load_github_file"),
    ("_safe_pickle", "_safe_pickle"),
    ("_safe_pickle", "_safe_unpickle"),
    ("_serialize", "_deserialize"),
    ("_serialize", "_serialize"),
    ("_serialize", "serialize_wrapper"),
    ("_sha1_of_dict", "sha1_of_dict"),
    ("_sha1_of_string", "_sha1_of_string"),
    ("core", "load_json"),
    ("get_kachery_cloud_dir", "use_sandbox"),
    ("init", "get_client_info"),
    ("load_file", "load_file_local"),
    ("mutable_local", "set_mutable_local"),
    ("request_file", "RequestFileResult"),
    ("store_file_local", "_compute_file_hash"),
    ("zenodo_upload", "initiate_zenodo_upload"),
    ("zenodo_upload.zenodo_upload", "ZenodoUploader"),
]


def without_annotations(function: object) -> str:
    signature = inspect.signature(function)  # type: ignore[arg-type]
    bare = [item.replace(annotation=inspect.Parameter.empty) for item in signature.parameters.values()]
    return str(signature.replace(parameters=bare, return_annotation=inspect.Signature.empty))


@pytest.mark.parametrize("name", SIGNATURES)
def test_signature(name: str) -> None:
    assert without_annotations(getattr(kachery_cloud, name)) == SIGNATURES[name]
    assert name in kachery_cloud.__all__


@pytest.mark.parametrize(("module", "name"), MODULES)
def test_module_paths(module: str, name: str) -> None:
    assert callable(getattr(importlib.import_module(f"kachery_cloud.{module}"), name))


def test_a_function_and_its_module_share_a_name() -> None:
    from kachery_cloud.store_file_local import _compute_file_hash, store_file_local

    assert kachery_cloud.store_file_local is store_file_local
    assert callable(_compute_file_hash)
    assert isinstance(kachery_cloud.TemporaryDirectory, type)
    assert inspect.ismodule(kachery_cloud.core)
    assert inspect.ismodule(kachery_cloud.mutable_local)
    assert inspect.ismodule(kachery_cloud.zenodo_upload)


def imported(code: str, **variables: str) -> str:
    environment = {"PATH": os.defpath, **variables}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_importing_makes_nothing_and_needs_little(tmp_path: Path) -> None:
    code = "import kachery_cloud, sys; print(*sys.modules)"

    modules = imported(code, HOME=str(tmp_path)).split()

    assert list(tmp_path.iterdir()) == []
    # D-24: what the releases require without need, or need without saying so
    assert not {"numpy", "yaml", "requests", "pubnub", "dask", "click", "urllib3", "nacl"} & set(modules)


def test_importing_with_an_unusable_home(tmp_path: Path) -> None:
    home = tmp_path / "file"
    home.write_text("not a directory")

    code = "import kachery_cloud as k; print(k.get_client_id(), k.load_file('sha1://' + '0' * 40, local_only=True))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PATH": os.defpath, "HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.stdout == "None None\n"


def test_sandbox_asked_for_from_outside(tmp_path: Path) -> None:
    # D-49: the releases cannot even be imported then
    code = "import kachery_cloud as k; u = k.store_text('x', local=True); print(k.load_file(u, local_only=True))"

    path = imported(code, HOME=str(tmp_path), KACHERY_CLOUD_USE_SANDBOX="1")

    assert path.startswith(f"{tmp_path}/.kachery-cloud/sandbox/")
    assert [item for item in tmp_path.rglob("*") if item.is_file()] == []
