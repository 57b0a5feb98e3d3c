"""A recipe's file as a value that the line can carry out."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from inspection.cameras.options import StreamOptions
from inspection.config import Document, Key, parse, read_yaml
from inspection.control import RecipeInfo
from inspection.errors import ConfigInvalid, InspectionError
from inspection.modelfile import file_hash
from inspection.recipe.recipe import Recipe

ENDINGS = (".yaml", ".yml")
# What a recipe says of its files with these keys belongs to what it judges by; the others say where to read or write.
JUDGED_BY = ("model", "ignore_mask", "reference")


@dataclass(frozen=True, kw_only=True, slots=True)
class Loaded:
    """A recipe, ready to be carried out.

    Attributes:
        recipe: as it says, with every path relative to the recipe's file made absolute.
        id: the file's stem. path, folder: the file and where it lies.
        hash: SHA-256 of what it says (defaults filled in, paths as written) and of the contents of the models, masks
            and references that it names; spaces, comments and the order of keys do not count, and neither does where
            the folder lies.
        models: view -> SHA-256 of its model file.
        document: the file's keys and lines, for findings.
    """

    recipe: Recipe
    id: str
    path: Path
    folder: Path
    hash: str
    models: dict[str, str]
    document: Document = field(repr=False, compare=False)

    def where(self, *key: int | str) -> str:
        """`file:line` of a key, or of the nearest one above it that is written."""
        return self.document.where(*key)


@dataclass(frozen=True, kw_only=True, slots=True)
class Shelf:
    """The recipes in a folder.

    Attributes:
        infos: those that can be read, by index. paths: recipe id -> its file.
        broken: file -> why it cannot be chosen.
    """

    infos: tuple[RecipeInfo, ...]
    paths: dict[str, Path]
    broken: dict[Path, InspectionError]


def load(path: str | Path) -> Loaded:
    """Reads a recipe and everything that it judges by.

    Raises:
        ConfigInvalid: not there, an unknown key, a wrong value, or a model, mask or reference that cannot be read; with
            file, line and mend.
    """
    path = Path(path)
    document = read_yaml(path)
    written = parse(document.values, Recipe, source=document.source, lines=document.lines)
    folder = path.absolute().parent
    recipe = placed(written, folder)
    contents: dict[str, str] = {}
    models: dict[str, str] = {}
    unreadable: list[ConfigInvalid] = []
    for key, file in judged_by(recipe):
        try:
            contents[".".join(map(str, key))] = file_hash(file)
        except OSError as error:
            unreadable.append(
                ConfigInvalid(
                    f"`{'.'.join(map(str, key))}`: {file} cannot be read: {error.strerror or error}.",
                    where=document.where(*key),
                    hint=f"Paths are relative to the recipe's folder, {folder}.",
                )
            )
        else:
            if key[-1] == "model":
                models[str(key[1])] = contents[".".join(map(str, key))]
    if unreadable:
        first, *more = unreadable
        rest = f" (And {len(more)} more files.)" if more else ""
        raise ConfigInvalid(first.what + rest, where=first.where, hint=first.hint)
    canonical = {"recipe": written.model_dump(mode="json"), "files": contents}
    said = json.dumps(canonical, sort_keys=True, separators=(",", ":"), allow_nan=True)
    return Loaded(
        recipe=recipe,
        id=path.stem,
        path=path.absolute(),
        folder=folder,
        hash=hashlib.sha256(said.encode()).hexdigest(),
        models=models,
        document=document,
    )


def recipes_in(folder: str | Path) -> Shelf:
    """The recipes (`*.yaml`, `*.yml`) in a folder, by index. Models are not read: that is for `load`.

    An index that a file states wins; the others take the lowest free ones, by the files' names. One that is broken, or
    has the name or the index of another, can not be chosen, and hinders no other: of two with one index neither is
    taken, as nobody can say which one the PLC means.

    Raises:
        ConfigInvalid: no such folder.
    """
    folder = Path(folder)
    try:
        files = sorted(file for file in folder.iterdir() if file.suffix in ENDINGS and not file.name.startswith("."))
    except OSError as error:
        raise ConfigInvalid(f"cannot be read: {error.strerror or error}.", where=str(folder)) from error
    recipes: dict[Path, Recipe] = {}
    documents: dict[Path, Document] = {}
    broken: dict[Path, InspectionError] = {}
    for file in files:
        try:
            documents[file] = read_yaml(file)
            recipes[file] = parse(documents[file].values, Recipe, source=str(file), lines=documents[file].lines)
        except InspectionError as error:
            broken[file] = error
    for name, same in _shared(recipes, lambda file, _: file.stem).items():
        for file in same:
            broken[file] = ConfigInvalid(
                f"{' and '.join(one.name for one in same)} are both the recipe `{name}`.",
                where=str(file),
                hint="Rename one of them.",
            )
    for index, same in _shared(recipes, lambda _, recipe: recipe.index).items():
        for file in same:
            broken[file] = ConfigInvalid(
                f"the index {index} is that of {' and '.join(one.name for one in same)}.",
                where=documents[file].where("index"),
                hint="A PLC chooses a recipe by its index: give each its own.",
            )
    # Broken ones keep their place: mending one must not give another recipe's index to it.
    stated = {file: document.values.get("index") for file, document in documents.items()}
    stated |= {file: _stated_in_text(file) for file in files if file not in documents}
    free = (index for index in range(2 * len(files)) if index not in stated.values())
    infos = []
    for file in files:
        index = stated.get(file)
        index = next(free) if index is None else index
        if file not in broken:
            infos.append(RecipeInfo(id=file.stem, index=index, product=recipes[file].product))
    return Shelf(
        infos=tuple(sorted(infos, key=lambda info: info.index)),
        paths={file.stem: file for file in recipes if file not in broken},
        broken=broken,
    )


def _stated_in_text(file: Path) -> int | None:
    """The index that a file states which is no YAML, for instance because it is half written."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        if found := re.search(r"^index:\s*(\d+)\s*(?:#.*)?$", file.read_text(encoding="utf-8"), re.MULTILINE):
            return int(found[1])
    return None


def judged_by(recipe: Recipe) -> Iterator[tuple[Key, Path]]:
    """The files that a recipe judges by, each with its key."""
    for name, view in recipe.views.items():
        for key in JUDGED_BY:
            file = getattr(view, key)
            if file is not None:
                yield ("views", name, key), file


def placed(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe with every relative path below `folder`."""

    def place(value: Any) -> Any:
        if isinstance(value, Path):
            return folder / value
        if isinstance(value, StreamOptions) and "://" not in value.url:
            return value.model_copy(update={"url": str(folder / value.url)})
        if isinstance(value, BaseModel):
            changed = {name: place(getattr(value, name)) for name in type(value).model_fields}
            return value.model_copy(update=changed)
        if isinstance(value, dict):
            return {key: place(one) for key, one in value.items()}
        if isinstance(value, tuple):
            return tuple(place(one) for one in value)
        return value

    done: Recipe = place(recipe)
    return done


def _shared(recipes: dict[Path, Recipe], of: Callable[[Path, Recipe], Any]) -> dict[Any, list[Path]]:
    """What more than one recipe has in common, with their files."""
    found: dict[Any, list[Path]] = {}
    for file, recipe in recipes.items():
        value = of(file, recipe)
        if value is not None:
            found.setdefault(value, []).append(file)
    return {value: files for value, files in found.items() if len(files) > 1}
