"""SFTP requests into file operations, and released operations back into requests. Pure.

A request that names files is never passed on: what goes to the target is made anew of the operation that was released,
so it can't hold anything that nobody decided. Spec: draft-ietf-secsh-filexfer-02 §6; OpenSSH's PROTOCOL §4.
"""

from __future__ import annotations

from interlock.commands.sftp import FileOperation
from interlock.ssh.sftp import packets
from interlock.ssh.sftp.packets import Attrs, Open, Packet, Type

EXTENSIONS: dict[bytes, bytes] = {
    b"posix-rename@openssh.com": b"1",
    b"hardlink@openssh.com": b"1",
    b"statvfs@openssh.com": b"2",
    b"fsync@openssh.com": b"1",
    b"lsetstat@openssh.com": b"1",
    b"expand-path@openssh.com": b"1",
    b"limits@openssh.com": b"1",
}
"""What we say that we know. Any other extended request is answered as unsupported."""

FOLLOWS = frozenset({"get", "put", "append", "ls", "stat", "statvfs", "setstat"})
"""Operations that go where a link at the end of the path leads; the others are about the name itself."""

_ON_A_PATH = {
    Type.LSTAT: "lstat", Type.STAT: "stat", Type.OPENDIR: "ls", Type.REMOVE: "rm", Type.RMDIR: "rmdir",
    Type.REALPATH: "realpath", Type.READLINK: "readlink", Type.MKDIR: "mkdir", Type.SETSTAT: "setstat",
    Type.RENAME: "rename", Type.SYMLINK: "symlink",
}  # fmt: skip
_TYPE_OF = {verb: kind for kind, verb in _ON_A_PATH.items()}
_EXTENDED = {
    b"posix-rename@openssh.com": ("rename", 2), b"hardlink@openssh.com": ("hardlink", 2),
    b"statvfs@openssh.com": ("statvfs", 1), b"expand-path@openssh.com": ("expand", 1),
}  # fmt: skip
_NAME_OF = {"hardlink": b"hardlink@openssh.com", "statvfs": b"statvfs@openssh.com", "expand": b"expand-path@openssh.com"}
_PERMISSIONS = 0o7777
_FLAGS = {"create": Open.CREAT, "exclusive": Open.EXCL, "truncate": Open.TRUNC, "read": Open.READ}


def operation(packet: Packet) -> FileOperation | None:
    """Return what a request asks for; None for one that is about no path, or that is not offered.

    Raise RemoteProtocolError when an extended request is malformed.
    """
    if packet.type is Type.OPEN:
        return _open(packet)
    if packet.type is Type.EXTENDED:
        return _extended(packet)
    verb = _ON_A_PATH.get(packet.type)
    if verb is None:
        return None
    paths = tuple(_path(value) for value in packet.fields if isinstance(value, bytes))
    found = FileOperation(verb, paths)
    for value in packet.fields:
        if isinstance(value, Attrs):
            found = found.with_options(**_options(value))
    return found


def on_handle(path: str, attrs: Attrs) -> FileOperation:
    """Return what FSETSTAT asks for: the same as SETSTAT on the path that was opened."""
    return FileOperation("setstat", (path,)).with_options(**_options(attrs))


def request(released: FileOperation, number: int) -> Packet:
    """Return the request that carries out a released operation."""
    places = tuple(place.encode() for place in released.places)
    attrs = _attrs(released)
    match released.verb:
        case "get":
            return Packet(Type.OPEN, number, (places[0], int(Open.READ), attrs))
        case "put" | "append":
            flags = Open.WRITE | (Open.APPEND if released.verb == "append" else 0)
            flags |= sum(flag for name, flag in _FLAGS.items() if released.option(name))
            return Packet(Type.OPEN, number, (places[0], int(flags), attrs))
        case "mkdir" | "setstat":
            return Packet(_TYPE_OF[released.verb], number, (places[0], attrs))
        case "lsetstat":
            return Packet(Type.EXTENDED, number, (b"lsetstat@openssh.com", packets.payload(places[0], attrs)))
        case "rename" if released.option("replace"):
            return Packet(Type.EXTENDED, number, (b"posix-rename@openssh.com", packets.payload(*places)))
        case "hardlink" | "statvfs" | "expand":
            return Packet(Type.EXTENDED, number, (_NAME_OF[released.verb], packets.payload(*places)))
        case _:
            return Packet(_TYPE_OF[released.verb], number, places)


def attributes(released: FileOperation) -> Attrs:
    """Return the attributes of a released `setstat`, for a file that is open already."""
    return _attrs(released)


def _open(packet: Packet) -> FileOperation | None:
    path, flags, attrs = packet.fields
    assert isinstance(path, bytes)
    assert isinstance(flags, int)
    assert isinstance(attrs, Attrs)
    if flags & ~(Open.READ | Open.WRITE | Open.APPEND | Open.CREAT | Open.TRUNC | Open.EXCL):
        return None
    if not flags & Open.WRITE:
        return FileOperation("get", (_path(path),)) if flags == Open.READ else None
    found = FileOperation("append" if flags & Open.APPEND else "put", (_path(path),))
    chosen = {name: "yes" for name, flag in _FLAGS.items() if flags & flag}
    return found.with_options(**chosen, **_options(attrs))


def _extended(packet: Packet) -> FileOperation | None:
    name, payload = packet.fields
    assert isinstance(name, bytes)
    assert isinstance(payload, bytes)
    if name == b"lsetstat@openssh.com":
        path, attrs = packets.string_and_attrs(payload)
        return FileOperation("lsetstat", (_path(path),)).with_options(**_options(attrs))
    if name not in _EXTENDED:
        return None
    verb, count = _EXTENDED[name]
    found = FileOperation(verb, tuple(_path(value) for value in packets.strings(payload, count)))
    return found.with_options(replace="yes") if verb == "rename" else found


def _path(raw: bytes) -> str:
    """An empty path is the directory where a session begins (§6.2). Bytes that are no UTF-8 are refused when it is read."""
    return raw.decode("utf-8", "surrogateescape") or "."


def _options(attrs: Attrs) -> dict[str, str]:
    return {
        "mode": "" if attrs.mode is None else format(attrs.mode & _PERMISSIONS, "04o"),
        "owner": "" if attrs.owner is None else "{}:{}".format(*attrs.owner),
        "size": "" if attrs.size is None else str(attrs.size),
        "times": "" if attrs.times is None else "{},{}".format(*attrs.times),
    }


def _attrs(released: FileOperation) -> Attrs:
    mode, owner, size, times = (released.option(name) for name in ("mode", "owner", "size", "times"))
    return Attrs(
        int(size) if size else None, _pair(owner, ":") if owner else None, int(mode, 8) if mode else None,
        _pair(times, ",") if times else None,
    )  # fmt: skip


def _pair(text: str, between: str) -> tuple[int, int]:
    first, _, second = text.partition(between)
    return int(first), int(second)
