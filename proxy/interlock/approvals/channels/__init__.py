"""Ways to reach reviewers. A channel authenticates a delivery; authority comes from the directory."""
