"""Images in: readers for the usual layouts, checks, splits, augmentation."""

from datasets.opening import open_dataset
from datasets.sample import SPLITS, Box, Dataset, Label, Sample, Split

__all__ = ["SPLITS", "Box", "Dataset", "Label", "Sample", "Split", "open_dataset"]
