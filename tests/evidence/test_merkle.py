"""RFC 6962 trees and proofs against the vectors of transparency-dev/merkle, and against themselves."""

from __future__ import annotations

import json
from base64 import b64decode
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlock.evidence import merkle
from interlock.verify.strict import Frontier

VECTORS = json.loads((Path(__file__).parent.parent / "data/rfc6962/proofs.json").read_text())


def hashes(texts: list[str] | None) -> list[bytes]:
    return [b64decode(text) for text in texts or []]


@pytest.mark.parametrize("vector", VECTORS["inclusion"], ids=lambda v: v["name"])
def test_inclusion_vectors(vector: dict[str, Any]) -> None:
    holds = merkle.verify_inclusion(
        vector["leafIdx"], vector["treeSize"], b64decode(vector["leafHash"]), hashes(vector["proof"]), b64decode(vector["root"])
    )
    assert holds is not vector["wantErr"]


def _consistency(vector: dict[str, Any]) -> bool:
    root1, root2 = b64decode(vector["root1"]), b64decode(vector["root2"])
    return merkle.verify_consistency(vector["size1"], vector["size2"], hashes(vector["proof"]), root1, root2)


@pytest.mark.parametrize("vector", VECTORS["consistency"], ids=lambda v: v["name"])
def test_consistency_vectors(vector: dict[str, Any]) -> None:
    all_hashes = all(len(b64decode(vector[name])) == merkle.SIZE for name in ("root1", "root2"))
    assert _consistency(vector) is (not vector["wantErr"] and all_hashes)


def test_all_vectors_are_there_and_only_one_has_no_hashes() -> None:
    assert len(VECTORS["inclusion"]) + len(VECTORS["consistency"]) == 196
    refused = [v["name"] for v in VECTORS["consistency"] if not v["wantErr"] and not _consistency(v)]
    assert len(refused) == 1


def test_root_of_the_eight_leaves_of_certificate_transparency() -> None:
    leaves = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
    root = merkle.root([merkle.leaf_hash(bytes.fromhex(leaf)) for leaf in leaves])
    assert root.hex() == "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"


def _leaves(count: int) -> list[bytes]:
    return [merkle.leaf_hash(str(n).encode()) for n in range(count)]


@given(st.integers(1, 70), st.data())
def test_own_proofs_hold_and_break_with_any_bit(size: int, data: st.DataObject) -> None:
    leaves = _leaves(size)
    root = merkle.root(leaves)
    index = data.draw(st.integers(0, size - 1))
    proof = merkle.inclusion_proof(index, leaves)
    assert merkle.verify_inclusion(index, size, leaves[index], proof, root)
    old = data.draw(st.integers(1, size))
    consistency = merkle.consistency_proof(old, leaves)
    assert merkle.verify_consistency(old, size, consistency, merkle.root(leaves[:old]), root)
    for broken in (proof, consistency):
        if broken:
            at = data.draw(st.integers(0, len(broken) - 1))
            broken[at] = bytes([broken[at][0] ^ 1]) + broken[at][1:]
    if proof:
        assert not merkle.verify_inclusion(index, size, leaves[index], proof, root)
    if consistency:
        assert not merkle.verify_consistency(old, size, consistency, merkle.root(leaves[:old]), root)


def test_the_verifiers_own_tree_gives_the_same_roots() -> None:
    ours, theirs = merkle.Tree(), Frontier()
    assert theirs.root() == ours.root().hex() == sha256(b"").hexdigest()
    for leaf in _leaves(70):
        ours.append(leaf)
        theirs.add(leaf)
        assert theirs.root() == ours.root().hex()


def test_proofs_outside_the_tree_are_refused() -> None:
    with pytest.raises(IndexError):
        merkle.inclusion_proof(3, _leaves(3))
    with pytest.raises(IndexError):
        merkle.consistency_proof(4, _leaves(3))
