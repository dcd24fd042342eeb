"""Where the webhook may connect: the receiver's name is looked up here, judged, and then connected to as judged.

A name that leads to a private, link-local or metadata address would let whoever controls it reach what only the proxy can
reach. The address that was judged is the address that is connected to: a second look-up could give another one. TLS is
still verified against the name.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable

import httpx

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], Awaitable[list[str]]]

_PROTOCOLS = ipaddress.ip_network("192.0.0.0/24")
"""IETF protocol assignments, among them a cloud's metadata service; older Pythons take most of them for public."""

_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def allowed(written: str, *, loopback: bool) -> bool:
    """Whether the webhook may connect to an address. `loopback`: the configured URL itself names this machine, and then
    nothing but this machine is meant."""
    try:
        address = _meant(ipaddress.ip_address(written.partition("%")[0]))
    except ValueError:
        return False
    if loopback:
        return address.is_loopback
    if address in _PROTOCOLS:
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved


def _meant(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 one stands for, where it does: mapped, 6to4, Teredo, NAT64."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    teredo = address.teredo
    return address.ipv4_mapped or address.sixtofour or (teredo[1] if teredo else None) or address


async def look_up(host: str, port: int) -> list[str]:
    """Return the addresses of a name, as the system resolves it."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class Guarded(httpx.AsyncBaseTransport):
    """A transport that connects to judged addresses only. One bad address among several refuses the name."""

    def __init__(self, inner: httpx.AsyncBaseTransport, *, loopback: bool, resolve: Resolve = look_up) -> None:
        self._inner = inner
        self._loopback = loopback
        self._resolve = resolve

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        host = request.url.host
        port = request.url.port or (443 if request.url.scheme == "https" else 80)
        try:
            addresses = await self._resolve(host, port)
        except OSError:
            raise httpx.ConnectError("the receiver's name can't be looked up") from None
        if not addresses or not all(allowed(address, loopback=self._loopback) for address in addresses):
            raise httpx.ConnectError("the receiver's name leads to an address that the webhook must not reach")
        failure: httpx.ConnectError | None = None
        for address in addresses:
            # The Host header was set from the name before this; TLS asks for the name and verifies it.
            extensions = {**request.extensions, "sni_hostname": host}
            there = httpx.Request(
                request.method, request.url.copy_with(host=address), headers=request.headers,
                content=await request.aread(), extensions=extensions,
            )  # fmt: skip
            try:
                return await self._inner.handle_async_request(there)
            except httpx.ConnectError as error:
                failure = error
        raise failure or httpx.ConnectError("the receiver has no address")

    async def aclose(self) -> None:
        await self._inner.aclose()
