"""Commands of this room."""


def train() -> None:
    """To come."""


def export() -> None:
    """To come."""


def evaluate() -> None:
    """To come."""
