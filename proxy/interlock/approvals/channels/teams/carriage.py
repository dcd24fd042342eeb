"""Which transport carries the channel: the native one, or the optional one when it is configured and installed."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Literal

from interlock.approvals.channels.teams.connector import Connector
from interlock.approvals.channels.teams.inbound import Expected
from interlock.approvals.channels.teams.native import NativeTransport
from interlock.approvals.channels.teams.transport import Transport
from interlock.clock import Clock
from interlock.errors import ConfigError
from interlock.identity.keyset import KeySet

INSTALL = "pip install 'interlock[teams-botbuilder]'"


def installed() -> bool:
    """Whether the optional transport's package is there."""
    try:
        return find_spec("botbuilder.core") is not None
    except ImportError:
        return False


def transport(
    kind: Literal["native", "botbuilder"], *, connector: Connector, expected: Expected, keys: KeySet, clock: Clock
) -> Transport:
    """Return the transport of this kind. Raise ConfigError when its package is not installed."""
    if kind == "native":
        return NativeTransport(connector=connector, expected=expected, keys=keys, clock=clock)
    try:
        from interlock.approvals.channels.teams.botbuilder import BotbuilderTransport
    except ImportError:
        raise ConfigError(
            f"approvals.channels.teams.transport: botbuilder is not installed; run: {INSTALL} – or leave the key out, for the "
            "native transport, which needs nothing more"
        ) from None
    return BotbuilderTransport(connector=connector, expected=expected, keys=keys, clock=clock)
