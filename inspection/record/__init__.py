"""The record: every verdict, chained so that it can be proven, and the images that belong to it."""
