"""One-line patches that each must make a named test fail: how we know that a test can fail."""
