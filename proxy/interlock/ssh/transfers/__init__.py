"""What programs say to each other when they copy through an exec: read on its way, and decided where it names something."""
