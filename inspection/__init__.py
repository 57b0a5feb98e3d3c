"""Judge images with an exported model: the only room with a public API.

from inspection import Inspector

inspector = Inspector("model.onnx")
print(inspector.inspect("part.png").verdict)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inspection.inspector import Inspector
    from inspection.modelfile import ModelCard, OperatingPoint, Tiling, read_card
    from inspection.pixels import read_image
    from inspection.results import Defect, Inspection, ScoreMap, Verdict

__all__ = [
    "Defect",
    "Inspection",
    "Inspector",
    "ModelCard",
    "OperatingPoint",
    "ScoreMap",
    "Tiling",
    "Verdict",
    "read_card",
    "read_image",
]

# Found when first asked for: `import inspection` costs milliseconds, and the command line does not load onnxruntime to
# print its help.
_WHERE = {
    "Inspector": "inspection.inspector",
    "ModelCard": "inspection.modelfile",
    "OperatingPoint": "inspection.modelfile",
    "Tiling": "inspection.modelfile",
    "read_card": "inspection.modelfile",
    "read_image": "inspection.pixels",
    "Defect": "inspection.results",
    "Inspection": "inspection.results",
    "ScoreMap": "inspection.results",
    "Verdict": "inspection.results",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'inspection' has no attribute {name!r}")
    return getattr(importlib.import_module(_WHERE[name]), name)
