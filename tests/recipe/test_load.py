"""Reading recipes: every mistake has its line, every path its folder, and the hash says what is judged by."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from inspection.cameras.options import FolderOptions, StreamOptions
from inspection.errors import ConfigInvalid
from inspection.modelfile import file_hash
from inspection.recipe.load import load, recipes_in
from tests.recipe.conftest import PLAIN, Write
from tests.support import graphs


def test_a_recipe_is_read_with_its_id_its_models_and_its_folder(write: Write, tmp_path: Path) -> None:
    loaded = load(write(name="cell-7.yaml"))
    assert (loaded.id, loaded.folder, loaded.path) == ("cell-7", tmp_path, tmp_path / "cell-7.yaml")
    assert (loaded.recipe.takt, loaded.recipe.deadline) == (1.0, 0.9)
    model = tmp_path / "models" / "mono.onnx"
    assert loaded.models == {"top": file_hash(model), "side": file_hash(model)}
    assert len(loaded.hash) == 64


def test_paths_are_relative_to_the_recipes_file(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(
        {
            "views.top.camera": {"kind": "folder", "path": "incoming"},
            "views.side.camera": {"kind": "stream", "url": "film.mp4"},
            "views.side.ignore_mask": str(tmp_path / "mask.png"),
            "views.back": {"camera": {"kind": "stream", "url": "rtsp://10.0.0.9/live"}, "model": "models/mono.onnx"},
            "outputs": [{"kind": "mqtt", "host": "broker", "ca": "keys/ca.pem"}],
        }
    )
    monkeypatch.chdir("/")
    recipe = load(path).recipe
    top, side, back = (view.camera for view in recipe.views.values())
    assert isinstance(top, FolderOptions)
    assert top.path == tmp_path / "incoming"
    assert top.done is None
    assert isinstance(side, StreamOptions)
    assert side.url == str(tmp_path / "film.mp4")
    assert isinstance(back, StreamOptions)
    assert back.url == "rtsp://10.0.0.9/live"
    assert recipe.views["side"].ignore_mask == tmp_path / "mask.png"
    assert recipe.record.folder == tmp_path / "record"
    assert recipe.outputs[0].ca == tmp_path / "keys" / "ca.pem"  # type: ignore[union-attr]


def test_the_hash_is_of_what_is_said_and_not_of_how_it_is_written(write: Write, tmp_path: Path) -> None:
    path = write({"views.top.ignore_mask": "mask.png"})
    first = load(path)
    turned = dict(reversed(list(yaml.safe_load(path.read_text()).items())))
    path.write_text("# a comment\n" + yaml.safe_dump({**turned, "takt": 1.0, "match": {"by": "order"}}))
    assert load(path).hash == first.hash
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    shutil.copytree(tmp_path / "models", moved / "models")
    for name in ("recipe.yaml", "mask.png"):
        shutil.copy(tmp_path / name, moved / name)
    assert load(moved / "recipe.yaml").hash == first.hash


def test_the_hash_changes_with_every_value_and_every_file_that_decides(write: Write, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"views.top.ignore_mask": "mask.png", "views.top.reference": "reference.png"}
    hashes = {load(write(settings)).hash}
    hashes.add(load(write({**settings, "deadline": "901ms"})).hash)
    hashes.add(load(write({**settings, "views.side.optional": True})).hash)
    path = write(settings)
    for name in ("mask.png", "reference.png"):
        with (tmp_path / name).open("ab") as file:
            file.write(b"x")
        hashes.add(load(path).hash)
    graphs.model_file(tmp_path / "models" / "mono.onnx", graphs.spec(channels=1), name="another")
    hashes.add(load(path).hash)
    assert len(hashes) == 6


def test_files_that_are_missing_are_named_with_their_line(write: Write) -> None:
    path = write({"views.top.model": "models/none.onnx", "views.side.reference": "none.png"})
    with pytest.raises(ConfigInvalid, match=r"views\.top\.model.*none\.onnx.*And 1 more") as caught:
        load(path)
    line = next(n for n, text in enumerate(path.read_text().splitlines(), 1) if "none.onnx" in text)
    assert caught.value.where == f"{path}:{line}"


CASES: list[tuple[dict[str, Any], str, list[str]]] = [
    ({"views.top.camera.kind": "genecam"}, "genecam", ["`views.top.camera.kind`", "Did you mean `genicam`?"]),
    ({"views.top.camera.kind": None}, "camera:", ["`kind` is missing", "genicam", "replay"]),
    ({"views.top.camera": "genicam"}, "camera: genicam", ["`views.top.camera`"]),
    ({"views.top.camera.pixel_fromat": "x"}, "fromat", ["`views.top.camera.pixel_fromat`", "`pixel_format`"]),
    ({"views.side.camera.adress": "x"}, "adress", ["Known keys: kind, queue, silence"]),  # of this kind alone
    ({"views.side.modl": "x"}, "modl", ["`views.side.modl`", "`model`"]),
    ({"views.side.model": None}, "side:", ["`views.side.model`", "required"]),
    ({"trigger.kind": "singal"}, "singal", ["`trigger.kind`", "`signal`"]),
    ({"trigger.view": "top"}, "view: top", ["`trigger.view`", "unknown"]),
    ({"match": {"by": "oder"}}, "oder", ["`match.by`", "`order`"]),
    ({"outputs": [{"kind": "mqtt", "host": "a"}, {"kind": "modbuss"}]}, "modbuss", ["`outputs.1.kind`", "`modbus`"]),
    ({"outputs": [{"kind": "mqtt", "host": "a", "retian": True}]}, "retian", ["`outputs.0.retian`", "`retain`"]),
    ({"outputs": [{"kind": "webhook", "url": "u", "hold": {"aftr": 1}}]}, "aftr", ["`outputs.0.hold.aftr`", "`after`"]),
    ({"rule": {"tolerances": [{"max_aera": 3}]}}, "max_aera", ["`rule.tolerances.0.max_aera`", "`max_area`"]),
    ({"rule": {"ng_views": 0}}, "ng_views", ["greater than or equal to 1"]),
    ({"takt": "soon"}, "soon", ["`takt`"]),
    ({"deadlin": 1}, "deadlin: 1", ["`deadline`"]),
    ({"views.top.regions": [{"x": 1, "y": 2, "width": 3}]}, "- x", ["`views.top.regions.0.height`", "required"]),
    ({"views.top.ignore": [[[1, 2], [3, 4]]]}, "- - - 1", ["`views.top.ignore.0`", "at least 3"]),
    ({"record": {"images": {"quota": "much"}}}, "much", ["`record.images.quota`"]),
    ({"views.a b": PLAIN["views"]["side"]}, "a b", ["`views.a b`", "pattern"]),
    ({"views.top.camera.features": {"Gain": [1]}}, "- 1", ["`views.top.camera.features.Gain`"]),
]


@pytest.mark.parametrize(("changes", "text", "words"), CASES, ids=[" ".join(case[2][0].split()) for case in CASES])
def test_a_mistake_is_named_with_its_line_and_what_was_meant(
    write: Write, changes: dict[str, Any], text: str, words: list[str]
) -> None:
    path = write(changes)
    with pytest.raises(ConfigInvalid) as caught:
        load(path)
    for word in words:
        assert word in str(caught.value)
    (line,) = [n for n, one in enumerate(path.read_text().splitlines(), 1) if text in one][:1]
    written = int(str(caught.value.where).rpartition(":")[2])
    assert abs(written - line) <= (1 if text in ("camera:", "- 1") else 0)


# A folder of recipes


def test_recipes_are_listed_by_index_and_a_stated_one_wins(write: Write, tmp_path: Path) -> None:
    write(name="a.yaml")
    write({"index": 0}, name="b.yaml")
    write({"product": "disc"}, name="c.yml")
    write({"index": 7}, name="d.yaml")
    (tmp_path / "notes.txt").write_text("no recipe")
    shelf = recipes_in(tmp_path)
    assert [(info.index, info.id, info.product) for info in shelf.infos] == [
        (0, "b", "cell"), (1, "a", "cell"), (2, "c", "disc"), (7, "d", "cell"),
    ]  # fmt: skip
    assert shelf.paths["c"] == tmp_path / "c.yml"
    assert shelf.broken == {}


def test_a_broken_recipe_is_reported_keeps_its_index_and_hinders_no_other(write: Write, tmp_path: Path) -> None:
    for name in ("a.yaml", "b.yaml", "c.yaml"):
        write(name=name)
    before = {info.id: info.index for info in recipes_in(tmp_path).infos}
    write({"takt": "soon"}, name="b.yaml")
    shelf = recipes_in(tmp_path)
    assert {info.id: info.index for info in shelf.infos} == {"a": before["a"], "c": before["c"]}
    assert "takt" in str(shelf.broken[tmp_path / "b.yaml"])
    (tmp_path / "b.yaml").write_text("\tno yaml")
    assert {info.id: info.index for info in recipes_in(tmp_path).infos} == {"a": before["a"], "c": before["c"]}


def test_two_recipes_with_one_index_or_one_name_can_not_be_chosen(write: Write, tmp_path: Path) -> None:
    write({"index": 3}, name="a.yaml")
    write({"index": 3}, name="b.yaml")
    write(name="c.yaml")
    write(name="c.yml")
    write(name="d.yaml")
    shelf = recipes_in(tmp_path)
    assert [info.id for info in shelf.infos] == ["d"]
    assert list(shelf.paths) == ["d"]
    assert {file.name for file in shelf.broken} == {"a.yaml", "b.yaml", "c.yaml", "c.yml"}
    assert "index 3" in str(shelf.broken[tmp_path / "b.yaml"])
    assert "both the recipe `c`" in str(shelf.broken[tmp_path / "c.yml"])


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match="cannot be read"):
        recipes_in(tmp_path / "none")
    assert recipes_in(tmp_path).infos == ()
