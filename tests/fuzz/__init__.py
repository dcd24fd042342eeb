"""Fuzzing: texts from grammars and mutations, the worlds they run in, and what must hold of them."""
