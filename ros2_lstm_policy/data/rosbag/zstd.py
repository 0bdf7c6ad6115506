"""Zstandard, from the standard library or from its copy for older Pythons."""

from __future__ import annotations

from pathlib import Path
import shutil
import sys

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MAGIC = b'\x28\xb5\x2f\xfd'


def decompress(packed: bytes | memoryview) -> bytes:
    """Return what was compressed; :raises ValueError: where it is damaged."""
    try:
        return zstd.decompress(packed)
    except zstd.ZstdError as error:
        raise ValueError(str(error)) from error


def unpack_file(packed: Path, target: Path) -> None:
    """Write the content of a compressed file; :raises ValueError: where it is damaged."""
    try:
        with zstd.open(packed, 'rb') as source, target.open('wb') as out:
            shutil.copyfileobj(source, out)
    except (zstd.ZstdError, EOFError) as error:
        raise ValueError(str(error)) from error
