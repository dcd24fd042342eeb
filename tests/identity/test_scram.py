"""SCRAM: the RFC's own vector, the two sides against each other, and what a hostile peer may try."""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
import itertools
import re
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.budget import examples
from interlock.errors import AuthenticationError, InterlockError, LocalProtocolError, RemoteProtocolError
from interlock.identity.saslprep import saslprep
from interlock.identity.scram import (
    MAX_ITERATIONS,
    MAX_VERIFIERS,
    PLAIN,
    PLUS,
    Accepted,
    ScramClient,
    ScramCredentials,
    ScramServer,
    derived_salt,
    impostor,
    salted_password,
    verifier,
)

SALT = b"0123456789abcdef"
BINDING = b"\x11" * 32


def entropy() -> Callable[[int], bytes]:
    count = itertools.count(1)
    return lambda n: next(count).to_bytes(2, "big").rjust(n, b"\xa5")


@functools.cache
def credentials(*passwords: str) -> ScramCredentials:
    return ScramCredentials(SALT, 4096, tuple(verifier(f"pw-{i}", p, SALT) for i, p in enumerate(passwords)))


def talk(server: ScramServer, client: ScramClient, password: str) -> Accepted:
    stretch = client.challenge(server.first(client.mechanism, client.first()))
    accepted = server.final(client.final(salted_password(password, stretch.salt, stretch.iterations)))
    client.verify(accepted.message)
    return accepted


def scripted(*chunks: bytes) -> Callable[[int], bytes]:
    queue = list(chunks)
    return lambda n: queue.pop(0) if queue else b"\x00" * n


class TestRfc7677Vector:
    """RFC 7677 §3: user `user`, password `pencil`."""

    CLIENT_FIRST = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
    SERVER_FIRST = b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
    CLIENT_FINAL = b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
    SERVER_FINAL = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="

    def test_client(self) -> None:
        client = ScramClient([PLAIN], entropy=scripted(base64.b64decode(b"rOprNGfwEbeRWgbNEkqO")), name="user")
        assert client.first() == self.CLIENT_FIRST
        stretch = client.challenge(self.SERVER_FIRST)
        assert client.final(salted_password("pencil", stretch.salt, stretch.iterations)) == self.CLIENT_FINAL
        client.verify(self.SERVER_FINAL)

    def test_server(self) -> None:
        salt = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
        stored = ScramCredentials(salt, 4096, (verifier("it", "pencil", salt),))
        server = ScramServer(stored, entropy=entropy())
        # The RFC's server nonce is no base64: put it where ours would be.
        server._nonce = b"%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
        assert server.first(PLAIN, self.CLIENT_FIRST) == self.SERVER_FIRST
        assert server.final(self.CLIENT_FINAL) == Accepted("it", self.SERVER_FINAL)


class TestExchange:
    @pytest.mark.parametrize("password", ["pencil", "pässwörd", "ilp_" + "x" * 43, "I\u00adX", "\u0627\u0031", ""])
    def test_right_password(self, password: str) -> None:
        server = ScramServer(credentials(password), entropy=entropy())
        assert talk(server, ScramClient([PLAIN], entropy=entropy()), password).verifier == "pw-0"

    def test_wrong_password(self) -> None:
        with pytest.raises(AuthenticationError):
            talk(ScramServer(credentials("right"), entropy=entropy()), ScramClient([PLAIN], entropy=entropy()), "wrong")

    @pytest.mark.parametrize("which", range(MAX_VERIFIERS))
    def test_each_of_eight_live_passwords_names_itself(self, which: int) -> None:
        stored = credentials(*(f"password-{i}" for i in range(MAX_VERIFIERS)))
        accepted = talk(ScramServer(stored, entropy=entropy()), ScramClient([PLAIN], entropy=entropy()), f"password-{which}")
        assert accepted.verifier == f"pw-{which}"

    def test_a_ninth_password_is_refused(self) -> None:
        with pytest.raises(LocalProtocolError):
            credentials(*(f"{i}" for i in range(MAX_VERIFIERS + 1)))

    def test_plus_is_taken_when_both_can(self) -> None:
        server = ScramServer(credentials("pw"), entropy=entropy(), binding=BINDING)
        client = ScramClient(server.mechanisms, entropy=entropy(), binding=BINDING)
        assert client.mechanism == PLUS
        assert talk(server, client, "pw").verifier == "pw-0"

    @settings(max_examples=examples(30), deadline=None)
    @given(st.text(max_size=40))
    def test_any_text_is_a_password(self, password: str) -> None:
        server = ScramServer(credentials(password), entropy=entropy())
        assert talk(server, ScramClient([PLAIN], entropy=entropy()), password).verifier == "pw-0"


class TestChannelBinding:
    def test_another_certificate_in_the_middle(self) -> None:
        server = ScramServer(credentials("pw"), entropy=entropy(), binding=BINDING)
        client = ScramClient(server.mechanisms, entropy=entropy(), binding=b"\x22" * 32)
        with pytest.raises(AuthenticationError, match="another certificate"):
            talk(server, client, "pw")

    def test_the_offer_of_plus_was_removed_on_the_way(self) -> None:
        server = ScramServer(credentials("pw"), entropy=entropy(), binding=BINDING)
        client = ScramClient([PLAIN], entropy=entropy(), binding=BINDING)
        with pytest.raises(AuthenticationError, match="did not see the offer"):
            talk(server, client, "pw")

    def test_a_client_without_binding_may_use_plain_under_tls(self) -> None:
        server = ScramServer(credentials("pw"), entropy=entropy(), binding=BINDING)
        assert talk(server, ScramClient(server.mechanisms, entropy=entropy()), "pw").verifier == "pw-0"

    def test_y_is_fine_where_nothing_was_offered(self) -> None:
        server = ScramServer(credentials("pw"), entropy=entropy())
        assert talk(server, ScramClient(server.mechanisms, entropy=entropy(), binding=BINDING), "pw").verifier == "pw-0"

    @pytest.mark.parametrize(
        ("binding", "mechanism", "header"),
        [
            (BINDING, PLUS, b"n,,"),
            (BINDING, PLUS, b"y,,"),
            (BINDING, PLUS, b"p=tls-unique,,"),
            (BINDING, PLAIN, b"p=tls-server-end-point,,"),
            (None, PLAIN, b"p=tls-server-end-point,,"),
            (None, PLUS, b"p=tls-server-end-point,,"),
            (None, "SCRAM-SHA-1", b"n,,"),
            (None, PLAIN, b"n,a=admin,"),
            (None, PLAIN, b","),
            (None, PLAIN, b""),
        ],
    )
    def test_headers_that_do_not_fit(self, binding: bytes | None, mechanism: str, header: bytes) -> None:
        with pytest.raises(RemoteProtocolError):
            ScramServer(credentials("pw"), entropy=entropy(), binding=binding).first(mechanism, header + b"n=,r=abc")

    def test_the_header_in_the_final_message_must_be_the_first_one(self) -> None:
        server = ScramServer(credentials("pw"), entropy=entropy())
        first = server.first(PLAIN, b"n,,n=,r=abc")
        nonce = first.split(b",")[0]
        with pytest.raises(AuthenticationError):
            server.final(b"c=" + base64.b64encode(b"y,,") + b"," + nonce + b",p=" + base64.b64encode(b"\0" * 32))


class TestProbing:
    SECRET = b"installation secret"

    def test_an_unknown_name_looks_like_a_known_one(self) -> None:
        known = replace(credentials("pw"), salt=derived_salt(self.SECRET, "alice"))
        unknown = impostor(self.SECRET, "nobody")
        shapes = []
        for stored in (known, unknown):
            server = ScramServer(stored, entropy=entropy())
            shapes.append(re.sub(rb"s=[A-Za-z0-9+/]{22}==", b"s=SALT", server.first(PLAIN, b"n,,n=,r=abc")))
        assert shapes[0] == shapes[1]

    def test_asking_twice_gives_the_same_salt_and_another_name_another(self) -> None:
        assert impostor(self.SECRET, "nobody") == impostor(self.SECRET, "nobody")
        assert impostor(self.SECRET, "nobody").salt != impostor(self.SECRET, "nobody2").salt
        assert impostor(self.SECRET, "nobody").salt != impostor(b"another", "nobody").salt

    def test_nothing_opens_an_unknown_name(self) -> None:
        with pytest.raises(AuthenticationError):
            talk(ScramServer(impostor(self.SECRET, "x"), entropy=entropy()), ScramClient([PLAIN], entropy=entropy()), "")

    def test_the_padding_is_no_credential(self) -> None:
        """Even somebody who knew the decoy's own client key would not be let in by it."""
        client_key = b"\x07" * 32
        stored_key = hashlib.sha256(client_key).digest()
        server = ScramServer(impostor(self.SECRET, "x"), entropy=lambda n: stored_key if n == 32 else b"\x01" * n)
        first = server.first(PLAIN, b"n,,n=,r=abc")
        without_proof = b"c=biws," + first.split(b",")[0]
        transcript = b",".join((b"n=,r=abc", first, without_proof))
        signature = hmac.digest(stored_key, transcript, "sha256")
        proof = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
        with pytest.raises(AuthenticationError):
            server.final(without_proof + b",p=" + base64.b64encode(proof))

    def test_secrets_are_not_in_repr(self) -> None:
        stored = credentials("pw")
        assert repr(stored.verifiers[0].stored_key)[2:12] not in repr(stored)


class TestHostileClient:
    def final_after(self, change: Callable[[bytes], bytes]) -> None:
        server = ScramServer(credentials("pw"), entropy=entropy())
        client = ScramClient([PLAIN], entropy=entropy())
        stretch = client.challenge(server.first(PLAIN, client.first()))
        server.final(change(client.final(salted_password("pw", stretch.salt, stretch.iterations))))

    def test_unchanged_it_works(self) -> None:
        self.final_after(lambda m: m)

    @pytest.mark.parametrize(
        "change",
        [
            lambda m: m.replace(b"r=", b"r=x"),
            lambda m: m.rpartition(b",p=")[0],
            lambda m: m.rpartition(b",p=")[0] + b",p=",
            lambda m: m.rpartition(b",p=")[0] + b",p=AAAA",
            lambda m: m + b"=",
            lambda m: m.replace(b"c=biws", b"c=!"),
            lambda m: m.replace(b"c=biws,", b""),
            lambda m: b"m=ext," + m,
            lambda m: m.replace(b",p=", b",\0,p="),
            lambda m: m.replace(b",p=", b",x=" + b"y" * 3000 + b",p="),
            lambda _: b"",
        ],
    )
    def test_malformed_final(self, change: Callable[[bytes], bytes]) -> None:
        with pytest.raises(RemoteProtocolError):
            self.final_after(change)

    def test_an_added_extension_breaks_the_proof(self) -> None:
        with pytest.raises(AuthenticationError):
            self.final_after(lambda m: m.replace(b",p=", b",x=y,p="))

    @pytest.mark.parametrize(
        "bare", [b"", b"n=", b"n=,r=", b"r=a,n=", b"n=,r=a\xffb", b"n=,r=a b", b"m=x,n=,r=a", b"n=,r=" + b"a" * 300]
    )
    def test_malformed_first(self, bare: bytes) -> None:
        with pytest.raises(RemoteProtocolError):
            ScramServer(credentials("pw"), entropy=entropy()).first(PLAIN, b"n,," + bare)

    def test_a_recorded_proof_does_not_work_again(self) -> None:
        client = ScramClient([PLAIN], entropy=entropy())
        first = client.first()
        server = ScramServer(credentials("pw"), entropy=entropy())
        stretch = client.challenge(server.first(PLAIN, first))
        proof = client.final(salted_password("pw", stretch.salt, stretch.iterations))
        server.final(proof)
        fresh = ScramServer(credentials("pw"), entropy=lambda n: b"\x5a" * n)
        fresh.first(PLAIN, first)
        with pytest.raises(InterlockError):
            fresh.final(proof)

    def test_a_failed_exchange_is_dead(self) -> None:
        server = ScramServer(credentials("pw"), entropy=entropy())
        with pytest.raises(RemoteProtocolError):
            server.first(PLAIN, b"garbage")
        with pytest.raises(LocalProtocolError):
            server.first(PLAIN, b"n,,n=,r=abc")
        with pytest.raises(LocalProtocolError):
            server.final(b"c=biws,r=abc,p=")

    @settings(max_examples=examples(200), deadline=None)
    @given(st.binary(max_size=200), st.binary(max_size=200))
    def test_garbage_is_refused_in_our_own_words(self, first: bytes, final: bytes) -> None:
        server = ScramServer(credentials("pw"), entropy=entropy(), binding=BINDING)
        with pytest.raises(InterlockError):
            server.first(PLAIN, first)
            server.final(final)


class TestHostileServer:
    def client(self) -> ScramClient:
        client = ScramClient([PLAIN], entropy=entropy())
        self.nonce = client.first().partition(b"r=")[2]
        return client

    @pytest.mark.parametrize("count", [b"1", b"4095", str(MAX_ITERATIONS + 1).encode(), b"999999999"])
    def test_iteration_count_out_of_bounds(self, count: bytes) -> None:
        client = self.client()
        with pytest.raises(AuthenticationError, match="iterations"):
            client.challenge(b"r=" + self.nonce + b"more,s=c2FsdA==,i=" + count)

    @pytest.mark.parametrize("count", [b"", b"0", b"-4096", b"4096 ", b"1e6", b"9" * 20, b"\xd9\xa4" * 4])
    def test_iteration_count_malformed(self, count: bytes) -> None:
        client = self.client()
        with pytest.raises(RemoteProtocolError):
            client.challenge(b"r=" + self.nonce + b"more,s=c2FsdA==,i=" + count)

    @pytest.mark.parametrize("suffix", [b"", None])
    def test_nonce_not_extended_or_foreign(self, suffix: bytes | None) -> None:
        client = self.client()
        nonce = b"foreign" if suffix is None else self.nonce
        with pytest.raises(RemoteProtocolError):
            client.challenge(b"r=" + nonce + b",s=c2FsdA==,i=4096")

    def test_empty_salt(self) -> None:
        client = self.client()
        with pytest.raises(RemoteProtocolError):
            client.challenge(b"r=" + self.nonce + b"more,s=,i=4096")

    def test_a_server_that_does_not_know_the_password(self) -> None:
        client = self.client()
        client.challenge(b"r=" + self.nonce + b"more,s=c2FsdA==,i=4096")
        client.final(salted_password("pw", b"salt", 4096))
        with pytest.raises(AuthenticationError, match="did not prove"):
            client.verify(b"v=" + base64.b64encode(b"\0" * 32))

    def test_an_empty_signature_before_the_proof_is_no_proof(self) -> None:
        client = self.client()
        with pytest.raises(LocalProtocolError):
            client.verify(b"v=")

    @pytest.mark.parametrize("message", [b"v=", b"v=AAAA", b"e=other-error"])
    def test_bad_final(self, message: bytes) -> None:
        client = self.client()
        client.challenge(b"r=" + self.nonce + b"more,s=c2FsdA==,i=4096")
        client.final(salted_password("pw", b"salt", 4096))
        with pytest.raises(AuthenticationError):
            client.verify(message)

    def test_no_common_mechanism(self) -> None:
        with pytest.raises(RemoteProtocolError):
            ScramClient(["SCRAM-SHA-1", "PLAIN"], entropy=entropy())


class TestSaslprep:
    """The examples of RFC 4013 §3, and PostgreSQL's fallback."""

    @pytest.mark.parametrize(
        ("text", "prepared"),
        [
            ("I\u00adX", b"IX"),
            ("user", b"user"),
            ("USER", b"USER"),
            ("\u00aa", b"a"),
            ("\u2168", b"IX"),
            ("a\u00a0b", b"a b"),
            ("\u0007", b"\x07"),  # ASCII is never prepared
            ("\u0627\u0031", "\u0627\u0031".encode()),  # forbidden by the bidi rule: raw
            ("\u00e9\u0007", "\u00e9\u0007".encode()),  # forbidden control character: raw
            ("\u00ad", "\u00ad".encode()),  # nothing would be left: raw
            ("\U0001f512", "\U0001f512".encode()),  # unassigned in Unicode 3.2: raw
        ],
    )
    def test_examples(self, text: str, prepared: bytes) -> None:
        assert saslprep(text) == prepared
