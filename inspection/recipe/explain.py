"""What a recipe will do, in plain words, for the person who has to sign it."""

from __future__ import annotations

import math
from collections.abc import Iterator

from inspection.cameras.options import (
    AnyCamera,
    DeviceOptions,
    FolderOptions,
    GenICamOptions,
    PushedOptions,
    ReplayOptions,
    StreamOptions,
)
from inspection.cameras.url import without_password
from inspection.info import sections as card_sections
from inspection.modelfile import ModelCard
from inspection.outputs.options import AnyOutput, ModbusOptions, MqttOptions, OpcUaOptions
from inspection.recipe.check import read_cards
from inspection.recipe.check_line import software_triggered
from inspection.recipe.check_views import frame_size
from inspection.recipe.load import Loaded
from inspection.recipe.recipe import CameraTrigger, Recipe, TimerTrigger, View
from inspection.recipe.rules import Tolerance
from inspection.tiling import plan


def explain(loaded: Loaded) -> str:
    """The recipe in plain words, a heading and indented lines for each subject. Raises ModelInvalid."""
    return "\n".join(
        f"{heading}\n" + "\n".join(f"  {line}" for line in lines) for heading, lines in sections(loaded).items()
    )


def sections(loaded: Loaded) -> dict[str, list[str]]:
    """Heading -> lines. Raises ModelInvalid."""
    recipe = loaded.recipe
    cards = read_cards(loaded)
    found = {
        f"recipe {loaded.id}": [
            f"product {recipe.product}" + ("" if recipe.index is None else f", number {recipe.index} for the PLC"),
            f"hash {loaded.hash}",
        ],
        "parts": list(_parts(recipe)),
    }
    for name, view in recipe.views.items():
        found[f"view {name}"] = list(_view(name, view, cards[name], loaded))
    found["verdict"] = list(_verdict(recipe))
    found["time"] = list(_time(recipe, cards))
    found["outputs"] = [line for output in recipe.outputs for line in _output(output)] or [
        "none: verdicts are recorded, and nobody is told"
    ]
    found["kept"] = list(_kept(recipe))
    return found


def runs(view: View, card: ModelCard) -> int | None:
    """Images that the network sees for one frame of a view: regions, or all their tiles; None: the size is unknown."""
    places = [(region.width, region.height) for region in view.regions]
    tiling = view.tiling or card.tiling
    if tiling is None:
        return max(1, len(places))
    if not places:
        known = frame_size(view)
        if known is None:
            return None
        places = [known[0]]
    return sum(len(plan(size, card.input, tiling)) for size in places)


def _parts(recipe: Recipe) -> Iterator[str]:
    trigger = recipe.trigger
    if isinstance(trigger, TimerTrigger):
        yield f"a timer makes a part every {_time_of(recipe.takt)}: for trials and simulations"
    elif isinstance(trigger, CameraTrigger):
        which = f"of view {trigger.view}" if trigger.view else "of any view"
        yield f"a part begins with a frame {which}; one is expected every {_time_of(recipe.takt)}"
    else:
        yield (
            f"a part begins when a PLC or a program says so (Modbus, OPC UA, HTTP); one is expected every "
            f"{_time_of(recipe.takt)}"
        )
    match = recipe.match
    yield {
        "order": "frames find their part by order: a view's first frame after the trigger is the part's",
        "trigger": "frames find their part by the trigger's number that comes with them",
        "part": "frames find their part by the serial that comes with them",
    }[match.by]
    if match.window is not None or match.early:
        until = "the deadline" if match.window is None else f"{_time_of(match.window)} after it"
        yield f"a frame may come from {_time_of(match.early)} before the trigger until {until}"
    yield f"{len(recipe.views)} view{_s(len(recipe.views))}: {', '.join(recipe.views)}"


def _view(name: str, view: View, card: ModelCard, loaded: Loaded) -> Iterator[str]:
    spec = card.input
    yield f"camera: {_camera(view.camera)}"
    others = [other for other, one in loaded.recipe.views.items() if one.model == view.model and other != name]
    shared = f"; loaded once, with {', '.join(others)}" if others else ""
    yield f"model: {view.model.name} ({card.network}, {card.precision}, sha256 {loaded.models[name][:12]}...){shared}"
    known = frame_size(view)
    if view.regions:
        places = ", ".join(f"{one.width} x {one.height} at {one.x}, {one.y}" for one in view.regions)
        yield f"judged: {len(view.regions)} region{_s(len(view.regions))}, each by itself: {places}"
    else:
        yield f"judged: the whole frame{'' if known is None else f', {known[0][0]} x {known[0][1]} pixels'}"
    tiling = view.tiling or card.tiling
    size = f"{spec.width} x {spec.height} {'mono' if spec.channels == 1 else 'RGB'} of {spec.bit_depth} bit"
    if tiling is None:
        yield f"network: sees each as {size} ({spec.resize})"
    else:
        count = runs(view, card)
        many = "as many as the frame's size asks for" if count is None else f"{count} a frame"
        yield f"network: sees tiles of {size}, {tiling.overlap:.0%} overlap, at the scale {tiling.scale:g}: {many}"
    yield from _thresholds(view, card)
    if view.ignore or view.ignore_mask:
        parts = [f"{len(view.ignore)} polygon{_s(len(view.ignore))}"] if view.ignore else []
        parts += [view.ignore_mask.name] if view.ignore_mask else []
        yield f"ignored: map cells that lie wholly in {' and '.join(parts)}"
    if view.zones:
        yield f"zones: {', '.join(view.zones)}"
    if view.mm_per_pixel is not None:
        yield f"scale: {view.mm_per_pixel:g} mm a pixel"
    if view.optional:
        yield "optional: a part without it is judged by the other views"


def _thresholds(view: View, card: ModelCard) -> Iterator[str]:
    point = view.operating_point or card.operating_point
    if point is None:
        yield "thresholds: none, so every part is REVIEW"
        return
    whose = "the recipe's" if view.operating_point is not None else "the model's"
    yield f"thresholds ({whose}): OK below {point.ok_below:.6g}, NG from {point.ng_above:.6g} on, REVIEW between"
    if point.pixel_above is not None:
        yield f"a place belongs to a defect from {point.pixel_above:.6g} on"
    if view.operating_point is not None and view.operating_point != card.operating_point:
        yield "promised: nothing; the bounds of the model's card are those of its own thresholds"
        return
    promises = card_sections(card).get("promises")
    for line in promises or ["nothing: the card has no bounds"]:
        yield f"promised: {line.strip()}"


def _verdict(recipe: Recipe) -> Iterator[str]:
    needed = recipe.rule.ng_views
    if needed == 1:
        yield "NG: any view is NG"
    else:
        yield f"NG: {needed} of {len(recipe.views)} views are NG; with fewer the part is REVIEW"
    required = [name for name, view in recipe.views.items() if not view.optional]
    yield f"ERROR: else, where {' or '.join(required)} has no frame, a damaged one, or was not judged in time"
    yield "REVIEW: else, where a view is REVIEW"
    yield "OK: every view is OK"
    for index, tolerance in enumerate(recipe.rule.tolerances):
        yield f"tolerance {index}: {_tolerance(tolerance)}"
    if recipe.rule.tolerances:
        yield "a defect beyond its tolerance's limits makes its view NG, whatever its score"


def _tolerance(tolerance: Tolerance) -> str:
    kinds = " or ".join(tolerance.kinds) if tolerance.kinds else "any defect"
    zones = f" in zone {' or '.join(tolerance.zones)}" if tolerance.zones else ""
    views = f" of view {' or '.join(tolerance.views)}" if tolerance.views else ""
    limits = [
        f"{'at most' if unit else 'with a score of at most'} {value:g}{unit}"
        for value, unit in (
            (tolerance.max_area, " square pixels"),
            (tolerance.max_area_mm2, " mm2"),
            (tolerance.max_length, " pixels long"),
            (tolerance.max_length_mm, " mm long"),
            (tolerance.max_score, ""),
            (tolerance.max_count, " on one part"),
        )
        if value is not None
    ]
    return f"{kinds}{zones}{views} may pass: {', '.join(limits) or 'without a limit'}"


def _time(recipe: Recipe, cards: dict[str, ModelCard]) -> Iterator[str]:
    lead = max((output.lead for output in recipe.outputs), default=0.0)
    left = recipe.deadline - lead
    yield f"deadline {_time_of(recipe.deadline)} after the trigger; then the verdict is of no use any more"
    slowest = [output.name or output.kind for output in recipe.outputs if output.lead == lead and lead]
    taken = f" ({slowest[0]} needs {_time_of(lead)})" if slowest else ""
    yield f"the verdict is there {_time_of(left)} after the trigger{taken}: judged by then, or ERROR"
    at_once = math.ceil(left / recipe.takt)
    if at_once > 1:
        yield f"up to {at_once} parts are under way at the same time"
    counts = [runs(view, cards[name]) for name, view in recipe.views.items()]
    known = [count for count in counts if count is not None]
    if len(known) == len(counts):
        yield (
            f"{sum(known)} image{_s(sum(known))} through the network for each part, {sum(known) / recipe.takt:.3g} a "
            "second; `inspection bench --recipe` says whether this machine keeps that up"
        )


def _output(output: AnyOutput) -> Iterator[str]:
    if isinstance(output, MqttOptions):
        what = f"MQTT {output.version} to {output.host}, QoS {output.qos}" + (
            ", Sparkplug B" if output.sparkplug else ""
        )
    elif isinstance(output, ModbusOptions):
        what = f"Modbus TCP server at {output.host}:{output.port}"
    elif isinstance(output, OpcUaOptions):
        what = f"OPC UA server at {output.host}:{output.port}, {', '.join(output.security)}"
    else:
        what = f"POST to {output.url}" + (", signed" if output.secret_env else "")
    yield f"{output.name or output.kind}: {what}; {', '.join(output.sends)}"
    if output.gate:
        when = ""
        if output.hold is not None:
            at = f"{output.hold.encoder} counts" if output.hold.encoder else _time_of(output.hold.after or 0)
            when = f", {at} after the trigger"
        yield f"  drives the reject gate{when}: a verdict that is late for it is counted and alarmed, and not sent"
    else:
        yield f"  reports: up to {_bytes(output.spool)} are stored while the other side is away, and sent in order"


def _kept(recipe: Recipe) -> Iterator[str]:
    record, images = recipe.record, recipe.record.images
    where = f"SQLite in {record.folder}" if record.database is None else "PostgreSQL"
    yield f"every verdict: {where}, {'for ever' if record.age is None else f'for {_time_of(record.age)}'}"
    shares = [("NG", images.ng), ("REVIEW", images.review), ("ERROR", images.error), ("OK", images.ok)]
    kept = [name if every == 1 else f"one in {every} {name}" for name, every in shares if every]
    if not kept:
        yield "images: none"
        return
    age = "" if images.age is None else f", for {_time_of(images.age)}"
    yield (
        f"images{' and maps' if images.maps else ''} of {', '.join(kept)}: at most {_bytes(images.quota)}{age}; "
        f"verdicts alone while less than {_bytes(images.free)} are free on the disk"
    )


def _camera(camera: AnyCamera) -> str:
    triggered = "the line triggers it" if software_triggered(camera) else ""
    if isinstance(camera, GenICamOptions):
        triggered = triggered or ("it runs by itself" if camera.trigger == "free" else f"a wire on {camera.trigger}")
        size = f", {camera.width} x {camera.height}" if camera.width and camera.height else ""
        return f"GenICam at {camera.address}, {camera.pixel_format or 'format as it stands'}{size}; {triggered}"
    if isinstance(camera, StreamOptions):
        return f"{without_password(camera.url)}{', mono' if camera.mono else ''}; it runs by itself"
    if isinstance(camera, DeviceOptions):
        return f"device {without_password(str(camera.device))}{', mono' if camera.mono else ''}; it runs by itself"
    if isinstance(camera, FolderOptions):
        return f"files {camera.pattern} that appear in {camera.path}"
    if isinstance(camera, PushedOptions):
        return "images that are sent to the line's HTTP door"
    assert isinstance(camera, ReplayOptions)
    return f"replay of {camera.path}; {triggered or 'as it was recorded'}"


def _time_of(seconds: float) -> str:
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        if seconds >= length and (unit != "min" or seconds >= 120):
            return f"{seconds / length:g} {unit}"
    return f"{seconds * 1000:g} ms"


def _bytes(count: int) -> str:
    for unit, size in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("KB", 10**3)):
        if count >= size:
            return f"{count / size:g} {unit}"
    return f"{count} bytes"


def _s(count: int) -> str:
    return "" if count == 1 else "s"
