"""A memory of patches of good images; what is far from all of them is a defect. Nothing is trained."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from inspection.errors import DataInvalid
from inspection.modelfile import InputSpec
from models import backbones
from models.coreset import SLACK, Coreset
from models.network import Network, Outputs
from models.options import PatchCoreOptions

NEIGHBOURS = 9  # in the paper's factor


class PatchCore(Network):
    """PatchCore (Roth et al., arXiv 2106.08265): distance of each patch to the nearest remembered one.

    `map` holds these distances, `score` is the highest. The bank is part of the graph; its budget (`rows`, and
    `memory_mb` while it is built) is kept whatever the number of images. Where a patch has more than `dims` numbers, a
    random projection that nearly keeps distances (Johnson and Lindenstrauss, 1984) shortens it.
    """

    name: ClassVar[str] = "patchcore"
    learns: ClassVar[Literal["gradient", "bank"]] = "bank"

    bank: Tensor
    squares: Tensor
    centre: Tensor
    near: Tensor

    def __init__(self, options: PatchCoreOptions, spec: InputSpec, *, pretrained: bool = True) -> None:
        super().__init__(spec, ())
        self.options = options
        self.backbone = backbones.build(options, spec, tuple(sorted(options.strides)), pretrained=pretrained)
        self.backbone.requires_grad_(False)
        whole = sum(self.backbone.channels)
        self.dims = options.dims if 0 < options.dims < whole else whole
        short = self.dims < whole
        self.project = nn.Conv2d(whole, self.dims, 1, bias=False).requires_grad_(False) if short else nn.Identity()
        if short:
            nn.init.normal_(self.project.weight, std=self.dims**-0.5)  # type: ignore[arg-type]
        # Empty until it is settled; a state dict brings its own size.
        self.register_buffer("bank", torch.zeros(0, self.dims))
        self.register_buffer("squares", torch.zeros(0))
        self.register_buffer("near", torch.zeros(0, NEIGHBOURS, dtype=torch.int64))
        self.register_buffer("centre", torch.zeros(self.dims))
        self.rows = min(options.rows, options.memory_mb * 1_000_000 // (4 * self.dims * (SLACK + 1)))
        self._coreset: Coreset | None = None

    @property
    def budget(self) -> str:
        """What building the bank and the finished bank take at most, to be said before the work starts."""
        finished = self.rows * self.dims * 4 / 1e6
        return (
            f"bank of at most {self.rows} patches of {self.dims} numbers: {finished:.1f} MB in the model file,"
            f" {finished * (SLACK + 1):.1f} MB while it is built, however many images there are"
        )

    def train(self, mode: bool = True) -> PatchCore:  # noqa: ARG002
        """There is nothing to train: batch statistics stay as they are."""
        return super().train(False)

    def forward(self, pixels: Tensor) -> Outputs:
        """Scores a batch; the map has one cell for the smallest stride. Raises DataInvalid before `settle`."""
        if len(self.bank) == 0:
            raise DataInvalid("the bank is empty.", hint="Let it remember good images and settle it first.")
        patches = self._patches(pixels)
        count, _, height, width = patches.shape
        rows = patches.flatten(2).transpose(1, 2)  # [N, h * w, dims]
        # |x - b|^2 - |x|^2 as one matrix product finds the nearest; a difference of large squares is no good as a
        # distance, above all near zero, so that one is taken anew. Centring saves digits in the product as well.
        index = (self.squares - 2 * rows @ self.bank.T).argmin(2)
        distances = (rows - self.bank[index]).square().sum(2).sqrt()
        score = distances.amax(1)
        if self.options.reweight:
            score = score * self._weight(rows, distances, index, score)
        return Outputs(score, distances.reshape(count, height, width))

    @torch.no_grad()
    def remember(self, pixels: Tensor) -> None:
        """Takes the patches of good images as candidates for the bank."""
        patches = self._patches(pixels).cpu().movedim(1, 3).flatten(0, 2)
        if self._coreset is None:
            self._coreset = Coreset(self.rows, self.dims)
        self._coreset.add(patches)

    @torch.no_grad()
    def settle(self) -> None:
        """Reduces the candidates to the bank. Raises DataInvalid where nothing was remembered."""
        if self._coreset is None:
            raise DataInvalid("there is nothing to remember.", hint="The training split holds no good image.")
        chosen = self._coreset.chosen()
        self._coreset = None
        device = self.centre.device
        centre = chosen.mean(0)
        bank = chosen - centre
        count = min(NEIGHBOURS, len(bank))
        near = torch.cat(
            [torch.cdist(part, bank).topk(count, largest=False).indices for part in torch.split(bank, 1024)]
        )
        self.centre, self.bank, self.near = (centre + self.centre.cpu()).to(device), bank.to(device), near.to(device)
        self.squares = (bank * bank).sum(1).to(device)

    def _patches(self, pixels: Tensor) -> Tensor:
        """`[N, dims, h, w]`: features averaged over 3x3, at the finest stride, projected and centred."""
        patches: Tensor = self.project(backbones.fused(self.backbone(pixels)))
        return patches.float() - self.centre[:, None, None]

    def _weight(self, rows: Tensor, distances: Tensor, index: Tensor, score: Tensor) -> Tensor:
        """1 - softmax of the highest distance among those to the neighbours of its nearest patch, `[N]`."""
        at = distances.argmax(1)
        worst = rows.gather(1, at[:, None, None].expand(-1, 1, self.dims))  # [N, 1, dims]
        around = self.bank[self.near[index.gather(1, at[:, None])[:, 0]]]  # [N, neighbours, dims]
        others = (worst - around).square().sum(2).sqrt()
        return 1 - (others - score[:, None]).exp().sum(1).reciprocal()

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *others: Any) -> None:
        for name in ("bank", "squares", "near"):
            if (value := state_dict.get(prefix + name)) is not None:
                setattr(self, name, torch.empty_like(value, device=self.centre.device))
        super()._load_from_state_dict(state_dict, prefix, *others)
