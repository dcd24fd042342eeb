"""The private parts of asyncssh that the front end stands on. When an update changes one, this breaks, loudly and first."""

from __future__ import annotations

import inspect

import asyncssh
import pytest
from asyncssh.constants import MSG_CHANNEL_CLOSE, MSG_CHANNEL_OPEN, MSG_CHANNEL_REQUEST, MSG_GLOBAL_REQUEST, MSG_KEXINIT

from interlock.ssh.channel import ClientChannel
from interlock.ssh.connection import ClientConnection


def test_the_version_is_the_one_that_was_read() -> None:
    assert asyncssh.__version__.startswith("2.24.")


def test_every_request_comes_to_our_own_handlers() -> None:
    assert ClientConnection._packet_handlers[MSG_CHANNEL_OPEN] is ClientConnection._process_gated_open
    assert ClientConnection._packet_handlers[MSG_GLOBAL_REQUEST] is ClientConnection._process_gated_global_request
    assert ClientConnection._packet_handlers[MSG_KEXINIT] is ClientConnection._process_strict_kexinit
    assert ClientChannel._packet_handlers[MSG_CHANNEL_REQUEST] is ClientChannel._process_gated_request
    assert ClientChannel._packet_handlers[MSG_CHANNEL_CLOSE] is ClientChannel._process_gated_close


def test_nothing_but_these_message_types_is_handled_at_all() -> None:
    """A type that a later asyncssh learns to handle must be looked at before it is let through."""
    assert sorted(ClientConnection._packet_handlers) == [1, 2, 3, 4, 5, 6, 7, 20, 21, 50, 51, 52, 53, 80, 81, 82, 90, 91, 92]
    assert sorted(ClientChannel._packet_handlers) == [93, 94, 95, 96, 97, 98, 99, 100]


@pytest.mark.parametrize(
    ("owner", "name", "parameters"),
    [
        (asyncssh.SSHServerConnection, "validate_public_key", ["self", "username", "key_data", "msg", "signature"]),
        (asyncssh.SSHServerConnection, "validate_password", ["self", "username", "password"]),
        (asyncssh.SSHServerConnection, "validate_kbdint_response", ["self", "username", "responses"]),
        (asyncssh.SSHServerConnection, "change_password", ["self", "username", "old_password", "new_password"]),
        (asyncssh.SSHServerConnection, "send_userauth_success", ["self"]),
        (asyncssh.SSHServerConnection, "send_userauth_failure", ["self", "partial_success"]),
        (asyncssh.SSHServerConnection, "send_newkeys", ["self", "k", "h"]),
        (asyncssh.SSHServerConnection, "reload_config", ["self"]),
        (asyncssh.SSHServerConnection, "_send_kexinit", ["self"]),
        (asyncssh.SSHServerConnection, "_cleanup", ["self", "exc"]),
        (asyncssh.SSHServerConnection, "pause_writing", ["self"]),
        (asyncssh.SSHServerConnection, "resume_writing", ["self"]),
        (asyncssh.SSHServerConnection, "data_received", ["self", "data", "datatype"]),
        (asyncssh.SSHClientConnection, "_connection_made", ["self"]),
        (asyncssh.SSHClientConnection, "_send_kexinit", ["self"]),
        (asyncssh.SSHClientConnection, "send_newkeys", ["self", "k", "h"]),
        (asyncssh.SSHTCPChannel, "_cleanup", ["self", "exc"]),
        (asyncssh.SSHTCPChannel, "_finish_open_request", ["self", "result"]),
        (asyncssh.SSHServerChannel, "process_open", ["self", "send_chan", "send_window", "send_pktsize", "session"]),
    ],
)
def test_the_hooks_are_where_they_were(owner: type, name: str, parameters: list[str]) -> None:
    assert list(inspect.signature(getattr(owner, name)).parameters) == parameters


def test_success_is_announced_in_one_place_only() -> None:
    """`send_userauth_success` is where a session is opened: nothing else may tell a client that it is in."""
    source = inspect.getsource(inspect.getmodule(asyncssh.SSHServerConnection))  # type: ignore[arg-type]  # it has one
    assert source.count("send_packet(MSG_USERAUTH_SUCCESS)") == 1


def test_what_is_sent_during_a_key_exchange_is_kept_where_we_count_it() -> None:
    source = inspect.getsource(asyncssh.SSHServerConnection.send_packet)
    assert "self._deferred_packets.append(" in source
