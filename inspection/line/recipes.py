"""The recipes of a line: which there are, and the one that it judges by, loaded and warm."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from inspection.control import NotReady, RecipeInfo
from inspection.errors import ConfigInvalid
from inspection.line.setup import Models, Setup, set_up
from inspection.recipe.load import ENDINGS, Loaded, Shelf, load, recipes_in

Transform = Callable[[Loaded], Loaded]


class Recipes:
    """All recipes of one folder.

    Args:
        first: the one to begin with. transform: what is changed in each before it is carried out.

    Attributes:
        changing: the one that is being loaded; None: none is.
    """

    def __init__(self, first: Path, transform: Transform) -> None:
        self.first = transform(load(first))
        self.folder = self.first.folder
        self.changing: RecipeInfo | None = None
        self._transform = transform
        self._models = Models()
        self._current: Setup | None = None
        self._seen: tuple[object, Shelf] | None = None
        self._one = threading.Lock()  # one change-over at a time

    @property
    def current(self) -> Setup:
        """What new parts are judged by. Raises NotReady before anything is loaded."""
        if self._current is None:
            raise NotReady("no recipe is loaded yet.", hint="Wait until the line is `stopped` or `running`.")
        return self._current

    @property
    def info(self) -> RecipeInfo | None:
        """Of `current`; None before anything is loaded."""
        return None if self._current is None else self._current.info

    def infos(self) -> list[RecipeInfo]:
        """All that can be chosen, by index."""
        own = self.info
        return [own if own is not None and own.id == info.id else info for info in self._shelf().infos]

    def begin(self) -> Setup:
        """Loads the first one. Raises what `set_up` raises."""
        self._current = set_up(self.first, self._models, self._info(self.first))
        return self._current

    def claim(self, recipe_id: str, *, wait: bool) -> Path:
        """The file of a recipe that is to be loaded next; `release` must follow. Raises ConfigInvalid, NotReady."""
        shelf = self._shelf()
        if recipe_id not in shelf.paths:
            broken = next((error for file, error in shelf.broken.items() if file.stem == recipe_id), None)
            raise ConfigInvalid(
                f"there is no recipe `{recipe_id}`." if broken is None else f"`{recipe_id}` is broken: {broken}",
                where=str(self.folder),
                hint=f"There are: {', '.join(shelf.paths)}.",
            )
        if not self._one.acquire(blocking=wait):
            raise NotReady("another recipe is being loaded.", hint="Ask again when it has taken over.")
        self.changing = next(info for info in shelf.infos if info.id == recipe_id)
        return shelf.paths[recipe_id]

    def release(self) -> None:
        """The change-over is over."""
        self.changing = None
        self._one.release()

    def load(self, path: Path) -> Setup:
        """Loads and warms a recipe beside the current one. Raises what `set_up` and `load` raise, and ConfigInvalid
        where it has other outputs or another record: those are the line's, whatever it makes."""
        loaded = self._transform(load(path))
        for key in ("outputs", "record"):
            if getattr(loaded.recipe, key) != getattr(self.current.loaded.recipe, key):
                raise ConfigInvalid(
                    f"its `{key}` are not those of the running recipe, and cannot be exchanged while the line runs.",
                    where=loaded.where(key),
                    hint="Give both recipes the same, or restart the line with this one.",
                )
        setup = set_up(loaded, self._models, self._info(loaded))
        if setup.by != self.current.by:
            raise ConfigInvalid(
                f"its frames find their part by `{setup.by}`, and those of the running recipe by `{self.current.by}`: "
                "frames on their way would go to the wrong part.",
                where=loaded.where("match", "by"),
                hint="Give both recipes the same, or restart the line with this one.",
            )
        if setup.workers != self.current.workers:
            raise ConfigInvalid(
                f"it asks for {setup.workers} workers, and the running line has {self.current.workers}.",
                where=loaded.where("work", "workers"),
                hint="Give both recipes the same, or restart the line with this one.",
            )
        return setup

    def take_over(self, setup: Setup) -> None:
        """New parts are judged by this one from now on."""
        self._current = setup

    def forget_old(self) -> None:
        """Lets go of models that the current recipe does not need."""
        self._models.keep([self.current])

    def renew(self) -> Setup:
        """The current recipe with its models loaded anew, because their sessions have failed.

        Raises:
            ConfigInvalid: a model file has been changed meanwhile: another model would judge under the old hash.
        """
        models = Models()
        setup = set_up(self.current.loaded, models, self.current.info)
        self._models = models
        return setup

    def _shelf(self) -> Shelf:
        """What lies in the folder; read again only when a file has changed, because a PLC may ask at every part."""
        try:
            entries = [entry for entry in os.scandir(self.folder) if entry.name.endswith(ENDINGS)]
            seen = tuple(sorted((entry.name, entry.stat().st_mtime_ns, entry.stat().st_size) for entry in entries))
        except OSError:
            return recipes_in(self.folder)  # says what is wrong
        if self._seen is None or self._seen[0] != seen:
            shelf = recipes_in(self.folder)
            if shelf.broken and self._seen is not None:
                # One of them may be half saved: what the PLC knows the others by must not change for that.
                known = {info.id: info.index for info in self._seen[1].infos}
                infos = [replace(info, index=known.get(info.id, info.index)) for info in shelf.infos]
                shelf = replace(shelf, infos=tuple(sorted(infos, key=lambda info: info.index)))
            self._seen = (seen, shelf)
        return self._seen[1]

    def _info(self, loaded: Loaded) -> RecipeInfo:
        known = next((info for info in recipes_in(loaded.folder).infos if info.id == loaded.id), None)
        index = (loaded.recipe.index or 0) if known is None else known.index
        return RecipeInfo(id=loaded.id, index=index, product=loaded.recipe.product, hash=loaded.hash)
