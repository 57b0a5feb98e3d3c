"""One onnxruntime session: made on the device that was asked for or not at all, and held to the graph contract.

Measured choices: docs/judging.md, `benchmarks/engine.py`.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as state

from inspection import onnxfile
from inspection.errors import ConfigInvalid, InferenceFailed, ModelInvalid, ProviderUnavailable
from inspection.machine import usable_cores
from inspection.modelfile import ModelCard
from inspection.pixels import Pixels

# Our name -> onnxruntime's, and options that keep the scores those of the certificate: no TF32.
PROVIDERS: dict[str, tuple[str, dict[str, str]]] = {
    "cpu": ("CPUExecutionProvider", {}),
    "cuda": ("CUDAExecutionProvider", {"use_tf32": "0"}),
    "tensorrt": ("TensorrtExecutionProvider", {}),
    "openvino": ("OpenVINOExecutionProvider", {"device_type": "CPU"}),
}
# `auto` leaves TensorRT out: it may spend minutes on building its engine at the first start, which must be asked for.
AUTO = ("cuda", "openvino", "cpu")
# What a provider hands its unsupported nodes to.
HELPERS = {"tensorrt": ("cuda", "cpu"), "cuda": ("cpu",), "openvino": ("cpu",), "cpu": ()}
WHEEL = {"cuda": "onnxruntime-gpu", "tensorrt": "onnxruntime-gpu", "openvino": "onnxruntime-openvino"}

# onnxruntime's own errors share no base but Exception.
ORT_ERRORS: tuple[type[Exception], ...] = (
    *(kind for kind in vars(state).values() if isinstance(kind, type) and issubclass(kind, Exception)),
    RuntimeError,
    ValueError,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Outputs:
    """What the network says of a batch, raw."""

    score: NDArray[np.float32]  # [N]
    map: NDArray[np.float32] | None = None  # [N, h, w]
    classes: NDArray[np.float32] | None = None  # [N, K]


class Engine:
    """A model that is ready to run. May be called from several threads.

    Args:
        model: the bytes of the model file.
        card: its card.
        name: goes into errors.
        provider: `cpu`, `cuda`, `tensorrt`, `openvino`, or `auto` for the first of them that is granted.
        threads: threads for one network run; None: one for each core that this process may use.

    Raises:
        ModelInvalid: onnxruntime refuses the graph, or it does not keep the contract of `inspection.modelfile`.
        ProviderUnavailable: the provider is not in this onnxruntime, or it was refused at start.
    """

    def __init__(
        self, model: bytes, card: ModelCard, *, name: str = "model", provider: str = "auto", threads: int | None = None
    ) -> None:
        if threads is not None and threads < 1:
            raise ConfigInvalid(f"{threads} threads cannot run anything.", where="threads", hint="Give 1 or more.")
        self.name = name
        self.threads = threads or usable_cores()
        started = time.perf_counter()
        self.provider, self._session = open_session(model, name, provider, self.threads)
        self._outputs = _check_contract(self._session, card, name)
        self.start_seconds = time.perf_counter() - started

    def run(self, batch: Pixels) -> Outputs:
        """Scores `N x height x width x channels` pixels, C-contiguous and of the card's type.

        Raises:
            InferenceFailed: the network could not be run (out of memory, device lost).
            ModelInvalid: what came out is not what the contract says.
        """
        try:
            # Outputs come as arrays of their own and the input is not copied; nothing is left to save by binding on a
            # CPU (benchmarks/engine.py).
            values: list[Any] = self._session.run(self._outputs, {"pixels": batch})
        except ORT_ERRORS as error:
            raise InferenceFailed(
                f"the network could not be run: {first_line(error)}",
                where=self.name,
                hint="Look at free memory and at the device (`inspection doctor`).",
            ) from error
        outputs = Outputs(**dict(zip(self._outputs, values, strict=True)))
        for what, value in (("score", outputs.score), ("map", outputs.map), ("classes", outputs.classes)):
            if value is not None and len(value) != len(batch):
                raise ModelInvalid(
                    f"the output `{what}` has {len(value)} rows for {len(batch)} images.",
                    where=self.name,
                    hint="The graph has a fixed batch inside: export it again.",
                )
        return outputs


def offered() -> list[str]:
    """Our names of the providers that this onnxruntime was built with; whether they work is another question."""
    built = onnxruntime.get_available_providers()
    return [name for name, (theirs, _) in PROVIDERS.items() if theirs in built]


def open_session(model: bytes, name: str, provider: str, threads: int) -> tuple[str, Any]:
    """The granted provider (our name) and the onnxruntime session; raises as `Engine` does."""
    if provider != "auto" and provider not in PROVIDERS:
        raise ConfigInvalid(
            f"the provider `{provider}` is unknown.",
            where="provider",
            hint=f"Known providers: auto, {', '.join(PROVIDERS)}.",
        )
    if onnxfile.needs_other_files(model):
        raise ModelInvalid(
            "the model keeps its weights in files beside it, and a model file must be whole in itself.",
            where=name,
            hint="Export it again with `inspection export`, which writes one file.",
        )
    here = offered()
    if provider != "auto":
        return provider, _session(model, name, provider, threads, here)
    for choice in AUTO[:-1]:
        if choice in here:
            try:
                return choice, _session(model, name, choice, threads, here)
            except ProviderUnavailable:  # nobody asked for it by name; `Inspector.provider` says what was granted
                continue
    return AUTO[-1], _session(model, name, AUTO[-1], threads, here)


def _session(model: bytes, name: str, provider: str, threads: int, here: list[str]) -> Any:
    if provider not in here:
        raise ProviderUnavailable(
            f"this onnxruntime has no {provider}, only {', '.join(here)}.",
            where="provider",
            hint=f"Install {WHEEL.get(provider, 'onnxruntime')} in its place, or ask for one of the others.",
        )
    theirs = PROVIDERS[provider][0]
    chain = [
        (PROVIDERS[choice][0], _options(choice, threads)) for choice in (provider, *HELPERS[provider]) if choice in here
    ]
    try:
        # Without `enable_fallback=0` onnxruntime prints a line and goes on with the CPU, at start and at any later run.
        session = onnxruntime.InferenceSession(model, session_options(threads), providers=chain, enable_fallback=0)
    except ORT_ERRORS as error:
        if provider == "cpu":
            raise ModelInvalid(
                f"onnxruntime refuses the graph: {first_line(error)}",
                where=name,
                hint="The file is damaged, or made for a newer onnxruntime: export it again, or update onnxruntime.",
            ) from error
        _session(model, name, "cpu", threads, ["cpu"])  # a broken model is a broken model on every device
        raise not_granted(provider, first_line(error)) from error
    granted = session.get_providers()
    if not granted or granted[0] != theirs:
        raise not_granted(provider, f"onnxruntime granted {', '.join(granted)}")
    # onnxruntime keeps the bytes for a fallback that is switched off: a second copy of all weights.
    session._model_bytes = None
    return session


def _options(provider: str, threads: int) -> dict[str, str]:
    options = dict(PROVIDERS[provider][1])
    if provider == "openvino":  # it has threads of its own, and takes bfloat16 where the processor has it
        settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": str(threads)}
        options["load_config"] = json.dumps({options["device_type"]: settings})
    return options


def session_options(threads: int) -> Any:
    """Options of the sessions that judge."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3  # errors; its warnings are about how it places nodes
    # Threads that spin while they wait take the core from whoever decodes the next image, and from another inspector
    # beside this one: on two busy cores a run and a decode took 0.55 to 0.67 of the time (benchmarks/engine.py).
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _check_contract(session: Any, card: ModelCard, name: str) -> list[str]:
    """Holds the graph to the contract of `inspection.modelfile`; returns the names of the outputs to ask for."""
    spec = card.input

    def refuse(what: str) -> ModelInvalid:
        return ModelInvalid(what, where=name, hint="Make the file with `inspection export`.")

    inputs = {value.name: value for value in session.get_inputs()}
    if list(inputs) != ["pixels"]:
        raise refuse(f"the graph takes {_names(inputs)}, and one input `pixels` is expected.")
    pixels = inputs["pixels"]
    wanted = f"tensor({np.dtype(spec.dtype).name})"
    if pixels.type != wanted:
        raise refuse(f"the graph takes {pixels.type}, and its card says {wanted}.")
    shape = [spec.height, spec.width, spec.channels]
    if list(pixels.shape[1:]) != shape:
        raise refuse(f"the graph takes {_shape(pixels.shape)}, and its card says {_shape(['N', *shape])}.")
    if isinstance(pixels.shape[0], int):
        raise refuse(f"the graph takes exactly {pixels.shape[0]} images at a time, and any number is expected.")
    outputs = {value.name: value for value in session.get_outputs()}
    if "score" not in outputs:
        raise refuse(f"the graph gives {_names(outputs)}, and no `score`.")
    if card.classes and "classes" not in outputs:
        raise refuse(f"the card names {len(card.classes)} classes, and the graph gives none.")
    wanted_names = [what for what in ("score", "map", "classes") if what in outputs]
    ranks = {"score": 1, "map": 3, "classes": 2}
    for what in wanted_names:
        output = outputs[what]
        if output.type != "tensor(float)" or len(output.shape) != ranks[what]:
            raise refuse(
                f"the output `{what}` is {output.type} {_shape(output.shape)}, and the contract says otherwise."
            )
    if "classes" in outputs and outputs["classes"].shape[1] != len(card.classes):
        raise refuse(
            f"the graph tells {outputs['classes'].shape[1]} classes apart, and the card names {len(card.classes)}."
        )
    return wanted_names


def not_granted(provider: str, reason: str) -> ProviderUnavailable:
    """The error for a provider that was asked for and does not serve."""
    return ProviderUnavailable(
        f"{provider} was asked for and not granted: {reason}.",
        where="provider",
        hint="Look at the driver and its libraries (`inspection doctor`), or ask for `cpu`.",
    )


def first_line(error: Exception) -> str:
    """What onnxruntime says, without its pages of node names."""
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__


def _names(values: dict[str, Any]) -> str:
    return ", ".join(f"`{name}`" for name in values) or "nothing"


def _shape(shape: list[Any]) -> str:
    return " x ".join(str(size) for size in shape) or "scalar"
