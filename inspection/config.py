"""Typed YAML: every key is checked, and an error names the file, the line and the nearest key that exists."""

from __future__ import annotations

import difflib
import reprlib
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from inspection.errors import ConfigInvalid

Model = TypeVar("Model", bound=BaseModel)
Key = tuple[int | str, ...]


def load_yaml(path: str | Path, kind: type[Model]) -> Model:
    """Reads a YAML file as `kind`.

    Raises:
        ConfigInvalid: not there, not YAML, an unknown key (with its nearest neighbour), a wrong value. Names the line.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        values = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigInvalid(f"cannot be read: {error}.", where=str(path)) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise ConfigInvalid(f"is no YAML: {getattr(error, 'problem', error)}.", where=f"{path}{line}") from error
    values = {} if values is None else values
    if not isinstance(values, dict):
        raise ConfigInvalid("holds no keys.", where=str(path), hint="Write `key: value` lines.")
    lines: dict[Key, int] = {}
    _find_lines(node, (), lines, set(), str(path))
    return parse(values, kind, source=str(path), lines=lines)


def parse(values: dict[str, Any], kind: type[Model], *, source: str, lines: dict[Key, int] | None = None) -> Model:
    """Checks plain values as `kind`; `source` and `lines` (line by key path) are named in errors (ConfigInvalid)."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = _written(tuple(first["loc"]), values)
        line = next((lines[key[:n]] for n in range(len(key), 0, -1) if key[:n] in lines), None) if lines else None
        where = f"{source}:{line}" if line else source
        dotted = ".".join(str(part) for part in key)
        more = len(error.errors()) - 1
        rest = f" ({more} more after this one.)" if more else ""
        if first["type"] == "extra_forbidden":
            known = _known_keys(kind, key[:-1])
            near = difflib.get_close_matches(str(key[-1]), known, n=1, cutoff=0.4)
            hint = f"Did you mean `{near[0]}`?" if near else f"Known keys: {', '.join(known)}."
            raise ConfigInvalid(f"the key `{dotted}` is unknown.{rest}", where=where, hint=hint) from error
        raise ConfigInvalid(
            f"`{dotted}`: {first['msg']} (is {reprlib.repr(first['input'])}).{rest}", where=where
        ) from error


def _written(loc: Key, values: Any) -> Key:
    """The key path as the user wrote it: pydantic puts the names of a union's kinds between the keys."""
    path: list[int | str] = []
    for index, part in enumerate(loc):
        try:
            values = values[part]
        except (KeyError, IndexError, TypeError):
            if index < len(loc) - 1:
                continue  # a kind, or the key of something that is missing as a whole
        path.append(part)
    return tuple(path)


def _known_keys(kind: Any, path: Key) -> list[str]:
    """The keys allowed at `path` inside the model `kind`; empty where the path leaves what is typed."""
    for part in path:
        models = [m for m in _models(kind) if isinstance(part, str) and part in m.model_fields]
        if models:
            kind = models[0].model_fields[str(part)].annotation
    return sorted({name for model in _models(kind) for name in model.model_fields})


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if typing.get_origin(annotation) is not None or isinstance(annotation, types.UnionType):
        return [model for argument in typing.get_args(annotation) for model in _models(argument)]
    return []


def _find_lines(node: yaml.Node | None, path: Key, lines: dict[Key, int], seen: set[int], source: str) -> None:
    """Notes the line of every key below `node`. Raises ConfigInvalid where a key stands twice: YAML takes the last."""
    if id(node) in seen:  # an alias; a few nested ones would be more paths than memory has room for
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            here = (*path, str(key.value))
            line = key.start_mark.line + 1
            if here in lines and key.value != "<<":
                raise ConfigInvalid(
                    f"the key `{'.'.join(map(str, here))}` stands twice, first in line {lines[here]}.",
                    where=f"{source}:{line}",
                    hint="Keep one of them.",
                )
            lines[here] = line
            _find_lines(value, here, lines, seen, source)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            lines[(*path, index)] = value.start_mark.line + 1
            _find_lines(value, (*path, index), lines, seen, source)
