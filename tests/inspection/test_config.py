"""Configuration files: every mistake is named with its file, its line and what was meant."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field

from inspection.config import load_yaml, mistakes, parse, read_yaml
from inspection.errors import ConfigInvalid


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Folder(Strict):
    kind: Literal["folder"]
    path: str


class Camera(Strict):
    kind: Literal["camera"]
    address: str
    exposure: Annotated[float, Field(gt=0)] = 1.0


class View(Strict):
    name: str
    source: Annotated[Folder | Camera, Field(discriminator="kind")]


class Recipe(Strict):
    product: str = "any"
    takt: float = 1.0
    views: list[View] = []
    limits: dict[str, int] = {}
    extra: View | None = None


def load(tmp_path: Path, text: str) -> Recipe:
    (tmp_path / "recipe.yaml").write_text(text)
    return load_yaml(tmp_path / "recipe.yaml", Recipe)


class Anything(BaseModel):
    mode: str = ""


class Line(Strict):
    named: dict[str, View] = {}
    sources: tuple[Annotated[Folder | Camera, Field(discriminator="kind")], ...] = ()
    mode: Literal["free", "hardware", "software"] | None = None


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        # A name that the user chose may be that of a key, or of a kind, elsewhere.
        (
            "named:\n  source:\n    name: a\n    source:\n      kind: folder\n      pth: x\n",
            6,
            "`named.source.source.pth`",
        ),
        ("named:\n  camera:\n    name: a\n    sauce: 1\n", 4, "Did you mean `source`?"),
        ("sources:\n  - {kind: folder, path: p}\n  - kind: camera\n    path: p\n", 4, "`sources.1.path` is unknown"),
        ("sources:\n  - kind: camera\n    camera: a\n", 3, "Known keys: address, exposure, kind."),
        ("sources:\n  - kind: camra\n    address: a\n", 2, "`sources.0.kind`: `camra`"),
        ("sources:\n  - address: a\n", 2, "Write `kind: ` and one of folder, camera."),
        ("mode: softwar\n", 1, "Did you mean `software`?"),
    ],
)
def test_within_a_kind_the_keys_of_this_kind_are_known(tmp_path: Path, text: str, line: int, words: str) -> None:
    (tmp_path / "line.yaml").write_text(text)
    with pytest.raises(ConfigInvalid) as caught:
        load_yaml(tmp_path / "line.yaml", Line)
    assert words in str(caught.value)
    assert str(caught.value.where).endswith(f"line.yaml:{line}")


def test_all_mistakes_are_told_together(tmp_path: Path) -> None:
    (tmp_path / "line.yaml").write_text(
        "mode: x\nsources:\n  - kind: camera\n    addres: 1\n  - {kind: folder, path: p}\n"
    )
    found = mistakes(read_yaml(tmp_path / "line.yaml"), Line)
    assert [str(one.where).rpartition(":")[2] for one in found] == ["4", "1", "3"]
    assert mistakes(read_yaml(tmp_path / "line.yaml"), Anything) == []


def test_what_is_written_is_read(tmp_path: Path) -> None:
    recipe = load(tmp_path, "product: cell\nviews:\n  - name: top\n    source: {kind: camera, address: 10.0.0.2}\n")
    assert recipe.views[0].source == Camera(kind="camera", address="10.0.0.2")


def test_an_empty_file_means_all_defaults(tmp_path: Path) -> None:
    assert load(tmp_path, "") == Recipe()
    assert load(tmp_path, "# only a comment\n") == Recipe()


VIEW = "views:\n  - name: top\n    source:\n      kind: camera\n      address: a\n"


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("prodct: x\n", 1, ["`prodct`", "`product`"]),
        ("product: x\ntakt: fast\n", 2, ["`takt`", "fast"]),
        (VIEW + "      exposur: 3\n", 6, ["exposur", "`exposure`"]),
        (VIEW + "      exposure: -3\n", 6, ["greater than 0", "-3"]),
        (VIEW + "    nam: x\n", 6, ["`views.0.nam`", "`name`"]),
        ("views:\n  - name: a\n    source: {kind: drone}\n", 3, ["drone", "'folder', 'camera'"]),
        ("views:\n  - name: a\n", 2, ["`views.0.source`", "required"]),
        ("extra:\n  nme: a\n  name: b\n  source: {kind: folder, path: p}\n", 2, ["`extra.nme`", "`name`"]),
        ("limits:\n  a: 1\n  b: many\n", 3, ["`limits.b`", "many"]),
        ("qqqqqqqqqqq: 1\n", 1, ["Known keys", "product", "takt"]),
        ("product: [1\n", None, ["no YAML"]),
        ("product: x\n\tbad: tab\n", 2, ["no YAML"]),
        ("- a\n- b\n", None, ["no keys"]),
        ("just text\n", None, ["no keys"]),
    ],
)
def test_a_mistake_is_named_with_its_line_and_what_was_meant(
    tmp_path: Path, text: str, line: int | None, words: list[str]
) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        load(tmp_path, text)
    message = str(caught.value)
    assert "recipe.yaml" in str(caught.value.where)
    if line is not None:
        assert str(caught.value.where).endswith(f"recipe.yaml:{line}")
    for word in words:
        assert word in message


def test_more_than_one_mistake_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match="1 more after this one"):
        load(tmp_path, "takt: fast\nprodct: x\n")


def test_a_missing_file_and_one_that_is_no_text_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match="No such file"):
        load_yaml(tmp_path / "none.yaml", Recipe)
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(ConfigInvalid) as caught:
        load_yaml(tmp_path / "binary.yaml", Recipe)
    assert "binary.yaml" in str(caught.value.where)


def test_a_key_that_stands_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match="twice") as caught:
        load(tmp_path, "takt: 1\nproduct: x\ntakt: 2\n")
    assert str(caught.value.where).endswith(":3")


def test_a_yaml_of_aliases_without_end_is_refused(tmp_path: Path) -> None:
    levels = ["a0: &a0 {x: 1}"] + [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 40)]
    with pytest.raises(ConfigInvalid):
        load(tmp_path, "\n".join(levels) + "\n")


def test_plain_values_are_checked_without_a_file() -> None:
    with pytest.raises(ConfigInvalid) as caught:
        parse({"takt": "x"}, Recipe, source="request body")
    assert caught.value.where == "request body"
