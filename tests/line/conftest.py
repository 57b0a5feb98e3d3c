"""The simulated cameras that lines of these tests look through."""

from tests.support.gige_fixtures import gvcp, own_images

__all__ = ["gvcp", "own_images"]
