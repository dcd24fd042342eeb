"""Long runs against the real thing: shells, grammars, servers. A small share with a fixed seed is part of the tests."""
