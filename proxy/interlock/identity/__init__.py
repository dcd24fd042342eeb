"""Who is asking: principals, the directory, and the ways to prove an identity."""
