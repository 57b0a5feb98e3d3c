"""A few rows that stand for a stream of many, within a fixed memory."""

from __future__ import annotations

import torch
from torch import Tensor

from inspection.progress import Meter

SLACK = 3  # candidates held for each row that is wanted: more would only make the last choice slower
BLOCK = 512  # rows compared at once


class Coreset:
    """Chooses up to `rows` rows so that every row it was shown has one nearby (k-centre).

    Candidates are kept while they fit. When they do not, those within a radius of another are dropped, and from then on
    so is every new row within that radius; it grows when it has to (after the doubling scheme of Charikar et al.,
    STOC 1997). `chosen` then takes the farthest candidate from all taken so far, again and again (Gonzalez, 1985), as
    PatchCore does. Rare rows survive both steps, which a random sample would lose.
    """

    def __init__(self, rows: int, dims: int) -> None:
        self.rows = rows
        self.seen = 0
        self.radius = 0.0
        self._capacity = SLACK * rows
        self._pool = torch.empty(self._capacity + BLOCK, dims)
        self._count = 0

    @property
    def held(self) -> Tensor:
        """The candidates, `[count, dims]`."""
        return self._pool[: self._count]

    def add(self, rows: Tensor) -> None:
        """Takes `[n, dims]` float32 rows."""
        self.seen += len(rows)
        for block in torch.split(rows.to(self._pool), BLOCK):
            far = block[nearest(block, self.held) > self.radius] if self.radius > 0 else block
            self._pool[self._count : self._count + len(far)] = far
            self._count += len(far)
            if self._count > self._capacity:
                self._thin()

    def chosen(self) -> Tensor:
        """At most `rows` of the candidates, `[k, dims]`, in the order in which they were chosen."""
        pool = self.held
        if len(pool) <= self.rows:
            return pool.clone()
        # The farthest from the middle, so that the choice does not hang on the order of the images.
        index = int((pool - pool.mean(0)).square().sum(1).argmax())
        squares = pool.square().sum(1)
        closest = torch.full((len(pool),), torch.inf)
        taken = []
        with Meter("bank: choosing patches", self.rows) as meter:
            for _ in range(self.rows):
                taken.append(index)
                distance = squares - 2 * (pool @ pool[index]) + squares[index]
                closest = torch.minimum(closest, distance)
                closest[index] = -torch.inf
                index = int(closest.argmax())
                meter.step()
        return pool[taken]

    def _thin(self) -> None:
        """Raises the radius until half the candidates are left."""
        sample = self.held[torch.linspace(0, self._count - 1, BLOCK).long()]
        step = float(nearest(sample, self.held, skip=1).median())
        self.radius = max(self.radius * 1.1, step)
        while True:
            left = self._net(self.held)
            if len(left) <= self._capacity // 2:
                break
            self.radius = max(self.radius * 1.15, 1e-6)
        self._pool[: len(left)] = left
        self._count = len(left)

    def _net(self, rows: Tensor) -> Tensor:
        """Rows that are farther than the radius from each other, and near which all others lie."""
        kept = torch.empty_like(rows)
        count = 0
        for block in torch.split(rows, BLOCK):
            far = block[nearest(block, kept[:count]) > self.radius] if count else block
            apart = torch.cdist(far, far) > self.radius
            free = torch.ones(len(far), dtype=torch.bool)
            for index in range(len(far)):
                if free[index]:
                    free[index + 1 :] &= apart[index, index + 1 :]
            kept[count : count + int(free.sum())] = far[free]
            count += int(free.sum())
        return kept[:count].clone()


def nearest(rows: Tensor, others: Tensor, skip: int = 0) -> Tensor:
    """Distance of each row to its nearest of `others` (`skip`: of which so many are left out first), `[n]`."""
    distances = torch.cdist(rows, others)
    return distances.topk(skip + 1, dim=1, largest=False).values[:, skip] if skip else distances.amin(1)
