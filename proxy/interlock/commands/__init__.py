"""Text into facts, never into verdicts. Closed by construction: what is not understood is opaque."""
