"""Typed YAML: every key is checked, and an error names the file, the line and the nearest key that exists."""

from __future__ import annotations

import difflib
import reprlib
import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from inspection.errors import ConfigInvalid

Model = TypeVar("Model", bound=BaseModel)
Key = tuple[int | str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """A YAML file as plain values, and in which line each key stands."""

    source: str
    values: dict[str, Any]
    lines: dict[Key, int]

    def where(self, *key: int | str) -> str:
        """`file:line` of a key, or of the nearest one above it that is written there."""
        return _where(self.source, self.lines, key)


def read_yaml(path: str | Path) -> Document:
    """Reads a YAML file of keys, without knowing what they mean. Raises ConfigInvalid: not there, not YAML, no keys."""
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
    return Document(source=str(path), values=values, lines=lines)


def load_yaml(path: str | Path, kind: type[Model]) -> Model:
    """Reads a YAML file as `kind`.

    Raises:
        ConfigInvalid: not there, not YAML, an unknown key (with its nearest neighbour), a wrong value. Names the line.
    """
    found = read_yaml(path)
    return parse(found.values, kind, source=found.source, lines=found.lines)


def parse(values: dict[str, Any], kind: type[Model], *, source: str, lines: dict[Key, int] | None = None) -> Model:
    """Checks plain values as `kind`; `source` and `lines` (line by key path) are named in errors.

    Raises:
        ConfigInvalid: the first mistake, and how many more there are (`mistakes` gives all).
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first, *more = _mistakes(error, kind, source, lines or {})
        rest = f" ({len(more)} more after this one.)" if more else ""
        raise ConfigInvalid(first.what + rest, where=first.where, hint=first.hint) from error


def mistakes(document: Document, kind: type[BaseModel]) -> list[ConfigInvalid]:
    """Everything that keeps a document from being a `kind`; empty: nothing does."""
    try:
        kind.model_validate(document.values)
    except ValidationError as error:
        return _mistakes(error, kind, document.source, document.lines)
    return []


def _mistakes(error: ValidationError, kind: type[BaseModel], source: str, lines: dict[Key, int]) -> list[ConfigInvalid]:
    found: dict[Key, ConfigInvalid] = {}  # one for each key: pydantic says of a value once for each type it could be
    # A required key that was misspelt is missing too; what was meant by the misspelt one says more.
    for one in sorted(error.errors(), key=lambda one: one["type"] == "missing"):
        place = _follow(kind, tuple(one["loc"]))
        said = one["msg"].removeprefix("Value error, ")
        what, hint = f"{said} (is {reprlib.repr(one['input'])}).", None
        key = place.key
        if one["type"] == "extra_forbidden":
            what, hint = "", nearest(str(key[-1]), list(place.owner.model_fields) if place.owner else [], "keys")
        elif one["type"] == "union_tag_invalid":
            key = (*key, place.discriminator or "kind")
            tag = str(one["ctx"]["tag"])
            kinds = str(one["ctx"]["expected_tags"])
            what = f"`{tag}` is no kind that there is: {kinds}."
            hint = nearest(tag, [name.strip("' ") for name in kinds.split(",")], "kinds")
        elif one["type"] == "union_tag_not_found":
            named = place.discriminator or "kind"
            what, hint = f"the key `{named}` is missing.", f"Write `{named}: ` and one of {', '.join(place.kinds)}."
        elif one["type"] == "literal_error":
            hint = nearest(str(one["input"]), [str(value) for value in place.literals], "values")
        dotted = ".".join(str(part) for part in key)
        what = f"`{dotted}`: {what}" if what else f"the key `{dotted}` is unknown."
        found.setdefault(key, ConfigInvalid(what, where=_where(source, lines, key), hint=hint))
    return list(found.values())


def nearest(word: str, known: Sequence[str], what: str) -> str | None:
    """A hint: the known word that was meant, or all of them."""
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.4)
    if near:
        return f"Did you mean `{near[0]}`?"
    return f"Known {what}: {', '.join(sorted(known))}." if known else None


def _where(source: str, lines: dict[Key, int], key: Key) -> str:
    for end in range(len(key), 0, -1):
        line = lines.get(key[:end]) or lines.get(tuple(str(part) for part in key[:end]))  # `1:` is a key, and no text
        if line is not None:
            return f"{source}:{line}"
    return source


@dataclass(frozen=True, kw_only=True, slots=True)
class _Place:
    """Where an error lies: the key as it is written, and what may stand there."""

    key: Key
    owner: type[BaseModel] | None  # the model whose key it is
    annotation: Any
    discriminator: str | None

    @property
    def kinds(self) -> list[str]:
        named = self.discriminator or "kind"
        fields = [model.model_fields[named].annotation for model in typing.get_args(self.annotation)]
        return [str(value) for annotation in fields for value in typing.get_args(annotation)]

    @property
    def literals(self) -> tuple[Any, ...]:
        return typing.get_args(self.annotation) if typing.get_origin(self.annotation) is typing.Literal else ()


def _follow(kind: Any, loc: Key) -> _Place:
    """Walks pydantic's location along the types: between the keys it names the kinds of unions, which nobody wrote."""
    key: list[int | str] = []
    owner: type[BaseModel] | None = None
    annotation, discriminator = _bare(kind, None)
    for part in loc:
        if part == "[key]":  # the error lies in the name itself
            break
        origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
        if discriminator is not None:
            models = [m for m in arguments if part in typing.get_args(m.model_fields[discriminator].annotation)]
            annotation, discriminator = (models[0] if models else None), None
        elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
            key.append(part)
            owner = annotation
            field = annotation.model_fields.get(str(part))
            annotation, discriminator = _bare(field.annotation, field.discriminator) if field else (None, None)
        elif origin is dict:
            key.append(part)
            annotation, discriminator = _bare(arguments[1], None)
        elif origin in (tuple, list) and isinstance(part, int):
            key.append(part)
            several = origin is tuple and len(arguments) > part and Ellipsis not in arguments
            annotation, discriminator = _bare(arguments[part if several else 0], None)
        else:
            break  # a member of a union without kinds
    return _Place(key=tuple(key), owner=owner, annotation=annotation, discriminator=discriminator)


def _bare(annotation: Any, discriminator: Any) -> tuple[Any, str | None]:
    """A type without `Annotated` and `None`, and the key that tells the kinds of a union apart."""
    while True:
        if typing.get_origin(annotation) is typing.Annotated:
            for extra in annotation.__metadata__:
                discriminator = getattr(extra, "discriminator", None) or discriminator
            annotation = annotation.__origin__
        elif typing.get_origin(annotation) in (typing.Union, types.UnionType):
            rest = [one for one in typing.get_args(annotation) if one is not type(None)]
            if len(rest) != 1:
                return annotation, discriminator if isinstance(discriminator, str) else None
            annotation = rest[0]
        else:
            return annotation, discriminator if isinstance(discriminator, str) else None


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
