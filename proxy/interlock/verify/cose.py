"""A passkey's public key (COSE, RFC 9052 §7) as the PEM that openssl reads. ES256, EdDSA and RS256, and nothing else."""

from __future__ import annotations

import base64

ES256, EDDSA, RS256 = -7, -8, -257
KTY, ALG = 1, 3

_P256 = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d03010703420004")
"""SubjectPublicKeyInfo of a P-256 key up to its coordinates (RFC 5480)."""
_ED25519 = bytes.fromhex("302a300506032b6570032100")  # RFC 8410
_RSA = bytes.fromhex("300d06092a864886f70d0101010500")  # RFC 3279 §2.3.1


class CoseError(ValueError):
    """The bytes are no key that is accepted."""


def public_key(data: bytes) -> tuple[int, str]:
    """Return the algorithm and the key as PEM. Raise CoseError."""
    shape, rest = _map(data)
    if rest:
        raise CoseError("the passkey has bytes after its end")
    match shape:
        case {1: 2, 3: -7, -1: 1, -2: bytes(x), -3: bytes(y)} if len(shape) == 5 and len(x) == len(y) == 32:
            return ES256, _pem(_P256 + x + y)
        case {1: 1, 3: -8, -1: 6, -2: bytes(x)} if len(shape) == 4 and len(x) == 32:
            return EDDSA, _pem(_ED25519 + x)
        case {1: 3, 3: -257, -1: bytes(n), -2: bytes(e)} if len(shape) == 4 and n and e:
            numbers = _der(0x30, _der(0x02, b"\0" + n.lstrip(b"\0")) + _der(0x02, b"\0" + e.lstrip(b"\0")))
            return RS256, _pem(_der(0x30, _RSA + _der(0x03, b"\0" + numbers)))
    raise CoseError("the passkey is no ES256, EdDSA or RS256 key")


def _pem(der: bytes) -> str:
    text = base64.b64encode(der).decode("ascii")
    lines = "".join(text[at : at + 64] + "\n" for at in range(0, len(text), 64))
    return f"-----BEGIN PUBLIC KEY-----\n{lines}-----END PUBLIC KEY-----\n"


def _der(tag: int, content: bytes) -> bytes:
    """Encode one DER value; an INTEGER's needless leading zero is dropped (X.690 §8.3.2)."""
    if tag == 0x02 and len(content) > 1 and content[0] == 0 and content[1] < 0x80:
        content = content[1:]
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + content


# -- as much of CBOR (RFC 8949) as a key needs: a map from small integers to integers and byte strings --------------------


def _map(data: bytes) -> tuple[dict[int, int | bytes], bytes]:
    major, count, rest = _head(data)
    if major != 5 or count > 8:
        raise CoseError("the passkey is not a COSE key")
    found: dict[int, int | bytes] = {}
    for _ in range(count):
        key, rest = _value(rest)
        value, rest = _value(rest)
        if not isinstance(key, int) or key in found:
            raise CoseError("the passkey is not a COSE key")
        found[key] = value
    return found, rest


def _value(data: bytes) -> tuple[int | bytes, bytes]:
    major, argument, rest = _head(data)
    match major:
        case 0:
            return argument, rest
        case 1:
            return -1 - argument, rest
        case 2 if len(rest) >= argument:
            return rest[:argument], rest[argument:]
    raise CoseError("the passkey is not a COSE key")


def _head(data: bytes) -> tuple[int, int, bytes]:
    if not data:
        raise CoseError("the passkey is cut short")
    major, info = data[0] >> 5, data[0] & 0x1F
    if info < 24:
        return major, info, data[1:]
    size = {24: 1, 25: 2, 26: 4}.get(info)
    if size is None or len(data) < 1 + size:
        raise CoseError("the passkey is not a COSE key")
    return major, int.from_bytes(data[1 : 1 + size], "big"), data[1 + size :]
