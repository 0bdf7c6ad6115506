"""Walks a folder of recordings, into folders that are linked there too, never in circles."""

from __future__ import annotations

from collections.abc import Iterator
import os
from pathlib import Path


def walk(root: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """
    Yield each folder at or under a path with the names of its folders and of its files.

    As `os.walk` does it: what the caller takes out of the folders is not entered. Recordings are
    often collected from several disks by symbolic links, so these are followed, but for one that
    leads back to a folder on the way to it.
    """
    real = {os.fspath(root): [os.path.realpath(root)]}  # walked folder: its way in real ones
    for name, folders, files in os.walk(root, followlinks=True):
        way = real.pop(name)
        for folder in list(folders):
            path = os.path.join(name, folder)
            target = os.path.realpath(path)
            if os.path.islink(path) and any(_holds(target, passed) for passed in way):
                folders.remove(folder)
            else:
                real[path] = [*way, target]
        folders.sort()
        yield Path(name), folders, sorted(files)


def dangling(root: Path) -> list[Path]:
    """
    Return the links at or under a path whose targets are not there.

    A disk that is not mounted is one, and with it the recordings on it are missed without a word.
    Hidden names are editors' locks and the like.
    """
    if root.is_symlink() and not root.exists():
        return [root]
    return [folder / name for folder, _, names in walk(root) for name in names
            if not name.startswith('.') and not (folder / name).exists()]


def _holds(folder: str, other: str) -> bool:
    """Say whether a real folder is the other one or holds it."""
    return os.path.commonpath([folder, other]) == folder
