"""Files that commands write: the folder is tried before any work, and a file is never seen incomplete."""

import os
import tempfile
from pathlib import Path

from ..core.errors import PosError


class FolderUnusable(PosError):
    """Files cannot be written to a folder; the text has the path and the reason."""


def check_folder(folder: Path) -> None:
    """Create a folder and write a file to it, to find out now that it cannot be written. Raises FolderUnusable."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(4096))
            os.fsync(file.fileno())
    except OSError as error:
        raise FolderUnusable(f"cannot write to the folder {folder}: {error.strerror}") from None


def write_files(folder: Path, name: str, texts: dict[str, str]) -> list[Path]:
    """Write `name` with each suffix under a temporary name, then rename it. Raises FolderUnusable.

    A file with the same content stays as it is. Another one is never replaced: it may be that of another ledger.
    """
    paths = []
    for suffix, content in texts.items():
        path = folder / f"{name}.{suffix}"
        partial = path.with_suffix(f".{suffix}.partial")
        try:
            if path.is_file():
                if path.read_bytes() != content.encode():
                    raise FolderUnusable(f"{path} exists with other content, perhaps of another ledger")
                paths.append(path)
                continue
            with partial.open("wb") as file:
                file.write(content.encode())
                file.flush()
                os.fsync(file.fileno())
            paths.append(partial.replace(path))
        except OSError as error:
            raise FolderUnusable(f"cannot write {path}: {error.strerror}") from None
    return paths
