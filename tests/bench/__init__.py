"""`make bench`: ratios against peers of one interleaved run. Prints, never asserts a time."""
