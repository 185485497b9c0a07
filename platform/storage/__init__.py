"""Where runs are stored: a folder on disk, or a prefix of an object store (s3://, gs://), with the same methods."""

from parsecrl.platform.storage.location import (
    Location,
    download,
    for_tune,
    location_of,
    of_tune,
    read_json,
    remove_tree,
    upload,
    well_formed,
    writable_storage,
    write_atomically,
    write_bytes_atomically,
)
from parsecrl.platform.storage.lock import lock_of
from parsecrl.platform.storage.remote_path import RemotePath, in_parallel

__all__ = [
    "Location",
    "RemotePath",
    "download",
    "for_tune",
    "in_parallel",
    "location_of",
    "lock_of",
    "of_tune",
    "read_json",
    "remove_tree",
    "upload",
    "well_formed",
    "writable_storage",
    "write_atomically",
    "write_bytes_atomically",
]
