"""What a door takes before it refuses: bounded bodies, pixels, work and waiting."""

from __future__ import annotations

from inspection.modelfile import Value
from inspection.pixels import MAX_PIXELS


class Limits(Value):
    """Bounds of one service; a request beyond one of them gets an answer that names it.

    Memory for pictures is bounded by `(concurrency + queue) * max_bytes` for bodies, and `concurrency` decoded images.
    """

    max_bytes: int = 64 << 20  # of a request's body
    max_pixels: int = MAX_PIXELS
    concurrency: int = 2  # images in work at once: one is decoded while another is in the network
    queue: int = 16  # requests that may wait for their turn; the next one gets 503
    body_seconds: float = 30.0  # for a client to send its body; then 408
    drain_seconds: float = 30.0  # for what is in flight when the service is told to stop
