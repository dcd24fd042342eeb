"""The machine's certificate authorities, read once: each HTTP client of a test would read them anew, which takes 50 ms."""

from __future__ import annotations

import ssl

TRUST = ssl.create_default_context()
