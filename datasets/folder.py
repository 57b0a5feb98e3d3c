"""The files below a folder, listed once."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from inspection.errors import DataInvalid
from inspection.pixels import ENDINGS


@dataclass(frozen=True)
class Folder:
    """A folder and every file below it that is not hidden, as sorted relative paths."""

    root: Path
    files: tuple[PurePosixPath, ...]

    @cached_property
    def images(self) -> tuple[PurePosixPath, ...]:
        """The image files, by ending."""
        return self.ending(*ENDINGS)

    def ending(self, *endings: str) -> tuple[PurePosixPath, ...]:
        """The files with one of these endings (`.xml`), whatever their case."""
        return tuple(file for file in self.files if file.suffix.lower() in endings)

    def path(self, file: PurePosixPath) -> Path:
        """Where it is on disk."""
        return self.root / file

    @cached_property
    def index(self) -> dict[str, PurePosixPath]:
        """Every file by its relative path as text."""
        return {str(file): file for file in self.files}

    @cached_property
    def by_stem(self) -> dict[str, list[PurePosixPath]]:
        """The image files by name without ending."""
        found: dict[str, list[PurePosixPath]] = {}
        for image in self.images:
            found.setdefault(image.stem, []).append(image)
        return found

    def find(self, name: str, places: Iterable[PurePosixPath]) -> PurePosixPath | None:
        """The file `name` in the first of `places` that has it."""
        for place in places:
            found = self.index.get(os.path.normpath(place / name))
            if found is not None:
                return found
        return None


def scan(root: Path) -> Folder:
    """Lists what is below `root`; links are followed, each real folder once."""
    files: list[PurePosixPath] = []
    seen: set[str] = set()
    for where, folders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(where)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__MACOSX")))
        place = PurePosixPath(Path(where).relative_to(root).as_posix())
        files += [place / name for name in names if not name.startswith(".")]
    return Folder(root, tuple(sorted(files)))


def read_text(path: Path) -> str:
    """The text of an annotation file. Raises DataInvalid."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataInvalid(f"cannot be read: {error.strerror or error}.", where=str(path)) from error
    except UnicodeDecodeError as error:
        raise DataInvalid("this is no UTF-8 text.", where=str(path)) from error
