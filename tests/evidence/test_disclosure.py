"""RFC 9901 disclosures."""

from __future__ import annotations

import json
from base64 import b64encode, urlsafe_b64decode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlock.errors import EvidenceError
from interlock.evidence import disclosure
from interlock.evidence.chain import COMPILED


def test_digest_of_rfc_9901_section_4_2_3() -> None:
    text = "WyJfMjZiYzRMVC1hYzZxMktJNmNCVzVlcyIsICJmYW1pbHlfbmFtZSIsICJNw7ZiaXVzIl0"
    assert json.loads(urlsafe_b64decode(text + "=")) == ["_26bc4LT-ac6q2KI6cBW5es", "family_name", "Möbius"]
    assert disclosure.digest(text) == "X9yH0Ajrdm1Oij4tWso9UzzKJvPoDxwmuEcO3XAdRC0"


@given(st.binary(min_size=16, max_size=16), st.text(st.characters(exclude_categories=("Cs",))), st.integers(0, 2**40))
def test_a_line_says_what_was_committed_to(salt: bytes, value: str, seq: int) -> None:
    text, digest = disclosure.commit(salt, "text", value)
    line = disclosure.line(text, seq)
    assert disclosure.parse_line(line) == disclosure.Disclosed("text", value, digest, seq)
    assert disclosure.seq_of(line) == seq
    assert line.endswith(b"\n") and json.loads(line) == {"d": text, "seq": seq}


def test_the_salt_hides_the_value() -> None:
    assert disclosure.commit(b"a" * 16, "text", "yes")[1] != disclosure.commit(b"b" * 16, "text", "yes")[1]


@pytest.mark.parametrize(
    "line", [b"", b"{}", b"[1]", b'{"d":"!!","seq":1}', b'{"d":"W10","seq":1}', b'{"d":"W10"', b"\xff", b'{"d":1,"seq":1}']
)
def test_other_lines_are_refused(line: bytes) -> None:
    with pytest.raises(EvidenceError):
        disclosure.parse_line(line)


@given(st.binary(max_size=20))
def test_bytes_are_said_as_their_base64_is(data: bytes) -> None:
    for said in (data, data * 2000):
        assert disclosure.tail_of_bytes("data", said) == disclosure.tail("data", b64encode(said).decode())


@pytest.mark.skipif(not COMPILED, reason="no compiler at build time")
@given(st.binary(max_size=20), st.binary(max_size=200))
def test_both_forms_of_a_tail_are_the_same(name: bytes, value: bytes) -> None:
    assert disclosure.encoded_tail(name, value) == disclosure.encoded_tail_plain(name, value)
