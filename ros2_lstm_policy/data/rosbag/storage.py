"""Opens one storage file of a bag, by what it is and not by what it is called."""

from __future__ import annotations

from pathlib import Path
import tempfile
from types import TracebackType

from ros2_lstm_policy.data.problems import refuse
from ros2_lstm_policy.data.rosbag import mcap_file, sqlite_file, zstd
from ros2_lstm_policy.data.rosbag.stored import Place, StorageFile

SUFFIXES = ('.mcap', '.db3', '.mcap.zstd', '.db3.zstd')


def is_storage(path: Path) -> bool:
    """Return whether a file is called as a storage file is."""
    return path.name.endswith(SUFFIXES) and path.is_file()


def bag_name(path: Path) -> str:
    """Return the name of a bag: that of its folder, or of its file without the suffix."""
    endings = [suffix for suffix in SUFFIXES if path.name.endswith(suffix)]
    return path.name.removesuffix(max(endings, key=len, default=''))


class OpenFiles:
    """
    The storage files that are being read: each is opened once, the first time it is asked for.

    A file that is compressed as a whole is unpacked into a temporary folder until they are closed.
    """

    def __init__(self) -> None:
        """Open nothing yet."""
        self._files: dict[Path, StorageFile] = {}
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def file(self, path: Path) -> StorageFile:
        """Return an opened file; :raises RecordingError: where it is none or damaged."""
        if path not in self._files:
            self._files[path] = self._open(path)
        return self._files[path]

    def read(self, place: Place) -> bytes | memoryview:
        """Read one message again, uncompressed."""
        return uncompressed(self.file(place.file).read(place))

    def close(self) -> None:
        """Close every file."""
        self._files.clear()
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def __enter__(self) -> OpenFiles:
        """Return the files."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> None:
        """Close them."""
        self.close()

    def _open(self, shown: Path) -> StorageFile:
        path = shown
        try:
            begin = _begin(path)
            if begin.startswith(zstd.MAGIC):
                path = self._unpack(path)
                begin = _begin(path)
        except OSError as error:
            raise refuse('damaged', shown, shown.stem, f'cannot be opened: {error.strerror}'
                         ) from error
        if begin.startswith(mcap_file.MAGIC):
            return mcap_file.McapFile(path.open('rb'), shown)
        if begin.startswith(sqlite_file.MAGIC):
            return sqlite_file.SqliteFile(path, shown)
        found = ('is empty: the recorder ended before it wrote' if not begin else
                 f'is neither MCAP nor sqlite3: it begins with {begin[:8]!r}')
        raise refuse('damaged', shown, shown.stem, found)

    def _unpack(self, packed: Path) -> Path:
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix='bag-')
        target = Path(self._folder.name, packed.stem)
        try:
            zstd.unpack_file(packed, target)
        except ValueError as error:
            raise refuse('damaged', packed, packed.stem, f'cannot be decompressed ({error}); '
                         'copy it again from where it was recorded') from error
        return target


def uncompressed(data: bytes | memoryview) -> bytes | memoryview:
    """
    Return a message as it was before rosbag2 compressed it.

    CDR begins with two bytes that say its byte order, 0 and a small number; zstd with its magic.
    """
    return zstd.decompress(data) if bytes(data[:4]) == zstd.MAGIC else data


def _begin(path: Path) -> bytes:
    with path.open('rb') as file:
        return file.read(16)
