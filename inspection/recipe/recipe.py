"""The recipe as a typed value."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from inspection.cameras.options import AnyCamera, Depth
from inspection.modelfile import OperatingPoint, Tiling, Value
from inspection.outputs.options import AnyOutput
from inspection.quantities import Count, Delay, Seconds
from inspection.recipe.rules import Points, Positive, Rule, Zone
from inspection.record.options import RecordOptions

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
Whole = Annotated[int, Field(ge=0)]


class Region(Value):
    """A rectangle of the frame that is judged by itself, in pixels."""

    x: Whole
    y: Whole
    width: Count
    height: Count


class TimerTrigger(Value):
    """The line makes a part every takt: for trials and simulations."""

    kind: Literal["timer"]


class SignalTrigger(Value):
    """A door says that a part comes by: PLC over Modbus or OPC UA, or `POST /v1/triggers`."""

    kind: Literal["signal"]


class CameraTrigger(Value):
    """A frame opens the part: cameras that a light barrier triggers, without anybody telling the line."""

    kind: Literal["camera"]
    view: Name | None = None  # whose frames open parts; None: the first frame of any view


class Match(Value):
    """How frames find their part.

    Attributes:
        by: `order`: a view's n-th frame since a trigger, gaps in the camera's numbers counted; `trigger`: the number
            that comes with the frame; `part`: the serial or barcode that comes with the frame.
        window: a frame belongs to a trigger only if it arrives at most so long after it; None: until the deadline, and
            by `order` three quarters of a takt, less `early`. By `order` it must be shorter than the shortest time
            between two parts, less `early`: otherwise one missing exposure shifts every later frame to the part before.
        early: and at most so long before it (a frame may overtake the message about its trigger).
    """

    by: Literal["order", "trigger", "part"] = "order"
    window: Seconds | None = None
    early: Delay = 0.0


class View(Value):
    """One camera position on the part.

    Attributes:
        regions: judged one by one, in this order; none: the whole frame is one.
        ignore: places whose defects do not count, as polygons in pixels of the frame, or `ignore_mask`, a mono image of
            the frame's size, not black where defects do not count.
        bit_depth: of 10- and 12-bit cameras whose frames come as uint16. None: the model's.
        mm_per_pixel: the view's scale, for tolerances in millimetres.
        reference: image of a faultless part, for networks that compare.
        optional: a part without this view is judged by the others.
    """

    camera: AnyCamera
    model: Path
    bit_depth: Depth | None = None
    regions: tuple[Region, ...] = ()
    ignore: tuple[Points, ...] = ()
    ignore_mask: Path | None = None
    zones: dict[Name, Zone] = Field(default_factory=dict)
    tiling: Tiling | None = None
    operating_point: OperatingPoint | None = None
    mm_per_pixel: Positive | None = None
    reference: Path | None = None
    optional: bool = False


class Work(Value):
    """Where and how networks run.

    Attributes:
        provider: cpu, cuda, tensorrt, openvino or auto.
        workers: regions that are judged at the same time; None: one for each usable core on a CPU, two on a GPU.
        threads: of one network run; None: usable cores / workers.
        batch: regions of one model that may share a network run; None: 1 on a CPU, where it gains nothing, 8 on a GPU.
        waiting: frames that may wait for a worker; beyond it the part that is furthest from its deadline is an ERROR.
        hang: a network run that takes so long is given up, its worker replaced; None: the takt's tenfold, at least 5 s.
    """

    provider: str = "auto"
    workers: Count | None = None
    threads: Count | None = None
    batch: Count | None = None
    waiting: Count = 64
    hang: Seconds | None = None


class Recipe(Value):
    """What the line must do for one product.

    Attributes:
        product: its name. index: number by which a PLC chooses the recipe; None: by the order of the files' names.
        takt: seconds per part. deadline: after the trigger, the latest moment at which the verdict is of use.
        match: how frames find their part.
    """

    product: Annotated[str, Field(min_length=1, max_length=200)]
    index: Whole | None = None
    takt: Seconds
    deadline: Seconds
    trigger: Annotated[TimerTrigger | SignalTrigger | CameraTrigger, Field(discriminator="kind")]
    match: Match = Match()
    views: Annotated[dict[Name, View], Field(min_length=1)]
    rule: Rule = Rule()
    outputs: tuple[AnyOutput, ...] = ()
    record: RecordOptions = RecordOptions()
    work: Work = Work()

    @property
    def window(self) -> float:
        """Seconds after its trigger in which a part's frames may come (`Match.window`); zero or less: never."""
        if self.match.window is not None:
            return self.match.window
        if self.match.by != "order":
            return self.deadline
        return min(0.75 * self.takt - self.match.early, self.deadline)
