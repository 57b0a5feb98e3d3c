"""The line: cameras in, one verdict per part out, in time, and nothing lost."""
