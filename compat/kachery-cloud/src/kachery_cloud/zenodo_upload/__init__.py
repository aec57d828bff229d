"""Uploading files to Zenodo."""

from .zenodo_upload import ZenodoUploader, initiate_zenodo_upload

__all__ = ["ZenodoUploader", "initiate_zenodo_upload"]
