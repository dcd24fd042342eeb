"""Interlock: an identity-aware SSH and Postgres proxy for AI agents.

One command, one decision, one proof. Start reading at `interlock.gate`.
"""

__version__ = "0.1.0"
