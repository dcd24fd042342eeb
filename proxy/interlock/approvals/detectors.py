"""What secrets look like: published prefixes and lengths, forms that announce one, and strings that look random. Pure.

Detectors are data. Each pattern is bounded or possessive and starts at a boundary, so that a text is read in time
proportional to its length. A hit says where something is that looks like a secret, never that the rest is harmless.
Prefixes: the vendors' own documentation of their token formats (GitHub, Slack, Stripe, AWS "Understanding unique ID
prefixes", Google API keys, GitLab, npm, PyPI, OpenAI, Anthropic, SendGrid, DigitalOcean, HashiCorp Vault).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

_START = rb"(?<![A-Za-z0-9])"
_VALUE = rb"(?P<secret>[^\s'\"`&;|<>(){}\\,]{3,256}+)"
_QUOTED = rb"(?P<secret>(?:\\[^\n]|[^'\"\n\\]){1,256}+)"
_SQL_QUOTED = rb"(?P<secret>(?:''|[^'\n]){1,256}+)"


@dataclass(frozen=True, slots=True)
class Detector:
    """`pattern` has a group `secret` when only a part of it is one. `certain` is False for what only may be a secret."""

    name: str
    pattern: re.Pattern[bytes]
    certain: bool = True


@dataclass(frozen=True, slots=True)
class Hit:
    start: int
    end: int
    name: str
    certain: bool


def _token(name: str, pattern: bytes) -> Detector:
    return Detector(name, re.compile(_START + rb"(?P<secret>" + pattern + rb")"))


def _in_text(before: bytes, secret: bytes) -> re.Pattern[bytes]:
    return re.compile(rb"(?i)" + before + secret)


def _after(program: bytes, option: bytes) -> re.Pattern[bytes]:
    """An option that only means a secret to these programs, in the same command."""
    return re.compile(rb"(?:^|[\s;&|/])(?:" + program + rb")\b[^\n;|&]{0,256}?[ \t]" + option)


_NAMES = rb"(?:pass(?:word|wd|phrase)|pwd|secret|token|api[_-]?key|access[_-]?key|private[_-]?key|credentials?)"
_NAMED = _NAMES + rb"[A-Z0-9_]{0,24}+['\"]?[ \t]{0,4}+[=:][ \t]{0,4}+"
_OPTION = rb"(?<![A-Za-z0-9-])--?[a-z-]{0,24}" + _NAMES + rb"[ \t=]{1,4}+"
_CLIENTS = rb"mysql|mysqldump|mysqladmin|mariadb"
_HEADER = rb"authorization['\"]?[ \t]{0,4}+[:=][ \t]{0,4}+['\"]?(?:bearer|basic|token|digest)?[ \t]{1,4}+"

DETECTORS: tuple[Detector, ...] = (
    _token("an AWS key id", rb"(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}"),
    _token("a Google API key", rb"AIza[0-9A-Za-z_-]{35}"),
    _token("a Google OAuth secret", rb"(?:GOCSPX-[0-9A-Za-z_-]{28}|ya29\.[0-9A-Za-z_-]{20,512}+)"),
    _token("a GitHub token", rb"(?:gh[pousr]_[A-Za-z0-9]{36,255}+|github_pat_[A-Za-z0-9_]{36,255}+)"),
    _token("a GitLab token", rb"gl(?:pat|dt|rt|ptt|cbt|soat|ft|imt|agent)-[A-Za-z0-9_.-]{20,255}+"),
    _token("a Slack token", rb"xox[abeoprs](?:\.xox[bp])?-[A-Za-z0-9-]{10,255}+"),
    _token("a Slack app token", rb"xapp-[0-9]-[A-Za-z0-9-]{10,255}+"),
    _token("a Slack webhook", rb"hooks\.slack\.com/(?:services|workflows|triggers)/[A-Za-z0-9/+_-]{20,255}+"),
    _token("a Stripe key", rb"(?:[sr]k_(?:live|test)_|whsec_)[A-Za-z0-9+/=]{16,255}+"),
    _token("an npm token", rb"npm_[A-Za-z0-9]{36}"),
    _token("a PyPI token", rb"pypi-[A-Za-z0-9_-]{50,512}+"),
    _token("an Anthropic or OpenAI key", rb"sk-(?:ant-|proj-|svcacct-)?[A-Za-z0-9_-]{20,255}+"),
    _token("a SendGrid key", rb"SG\.[A-Za-z0-9_-]{16,64}+\.[A-Za-z0-9_-]{16,128}+"),
    _token("a DigitalOcean token", rb"do[opr]_v1_[a-f0-9]{64}"),
    _token("a Vault token", rb"hv[sbr]\.[A-Za-z0-9_-]{20,512}+"),
    _token("a Hugging Face token", rb"hf_[A-Za-z0-9]{30,255}+"),
    _token("a Twilio key", rb"SK[0-9a-f]{32}"),
    _token("an age key", rb"AGE-SECRET-KEY-1[0-9A-Z]{58}"),
    _token("an Interlock token or password", rb"il[kpdxs]_[A-Za-z0-9_-]{20,255}+"),
    _token("a JSON web token", rb"(?<![_-])eyJ[A-Za-z0-9_-]{8,}+\.[A-Za-z0-9_-]{8,}+\.[A-Za-z0-9_-]*+"),
    Detector("a password in a URL", re.compile(rb"://[^\s/?#@:'\"]{0,128}+:(?P<secret>[^\s/?#@'\"]{1,256}+)@")),
    Detector("an authorization header", _in_text(_HEADER, _VALUE)),
    Detector("a bearer token", _in_text(rb"\bbearer[ \t]{1,4}+", _VALUE)),
    Detector("a password", _in_text(_NAMED, _VALUE)),
    Detector("a password", _in_text(_NAMED + rb"['\"]", _QUOTED)),
    Detector("a password", _in_text(_OPTION + rb"['\"]?", _VALUE)),
    Detector("a password", _in_text(rb"\bpassword[ \t\n]{1,8}+E?'", _SQL_QUOTED)),
    Detector("a password", _in_text(rb"\bidentified[ \t\n]{1,8}+by[ \t\n]{1,8}+'", _SQL_QUOTED)),
    Detector("a password", _in_text(_OPTION + rb"['\"]", _QUOTED)),
    Detector("a password", _after(rb"sshpass", rb"-p[ \t]{0,4}['\"]?" + _VALUE)),
    Detector("a password", _after(_CLIENTS, rb"-p['\"]" + _QUOTED)),
    Detector("a password", _after(_CLIENTS, rb"-p(?P<secret>[^\s'\"]{1,256}+)")),
    Detector("login data", _after(rb"curl|wget|http", rb"(?:-u|--user)[ =]{0,2}['\"]?[^\s:'\"]{1,128}:" + _VALUE)),
)  # fmt: skip

_PEM = re.compile(rb"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
_PEM_END = re.compile(rb"-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
_WORD = re.compile(rb"[A-Za-z0-9+_=-]{20,}+")
_AWS_SECRET = re.compile(rb"(?<![A-Za-z0-9+/=])[A-Za-z0-9+/]{40}(?![A-Za-z0-9+/=])")
_TURNS = 0.3
"""In a random string every third character or so is of another class than the one before; in names hardly any is."""
MAX_HITS = 64


def find(text: bytes) -> tuple[Hit, ...]:
    """Return everything that looks like a secret, in order and without overlaps; certain ones win over doubtful ones.

    More than MAX_HITS is one hit over the whole text.
    """
    found = _keys(text)
    for detector in DETECTORS:
        for match in detector.pattern.finditer(text):
            found.append(Hit(*match.span("secret"), detector.name, detector.certain))
    for pattern in (_WORD, _AWS_SECRET):
        found += [Hit(*m.span(), "what may be a key", certain=False) for m in pattern.finditer(text) if _random(m.group())]
    joined = merged(found)
    return joined if len(joined) <= MAX_HITS else (Hit(0, len(text), "many secrets", certain=False),)


def _keys(text: bytes) -> list[Hit]:
    """Find private keys. One without its end goes to the end of the text, so that no second search starts inside it."""
    found: list[Hit] = []
    position = 0
    while (begin := _PEM.search(text, position)) is not None:
        end = _PEM_END.search(text, begin.end())
        position = len(text) if end is None else end.end()
        found.append(Hit(begin.start(), position, "a private key", certain=True))
    return found


def merged(hits: Iterable[Hit]) -> tuple[Hit, ...]:
    """Join what overlaps: all of it is hidden, under the name of the first certain one."""
    found: list[Hit] = []
    for hit in sorted(hits, key=lambda h: (h.start, -h.end)):
        if found and hit.start < found[-1].end:
            last = found[-1]
            named = last if last.certain or not hit.certain else hit
            found[-1] = Hit(last.start, max(last.end, hit.end), named.name, last.certain or hit.certain)
        else:
            found.append(hit)
    return tuple(found)


def _random(word: bytes) -> bool:
    """Whether a word looks drawn by lot. Hashes in hexadecimal and UUIDs are names of things, not secrets."""
    classes = [_class(char) for char in word]
    kinds = set(classes) - {0}
    if len(kinds) < 2 or not set(word) - set(b"0123456789abcdefABCDEF-"):
        return False
    turns = sum(a != b for a, b in pairwise(classes)) / len(word)
    return turns >= _TURNS and (len(kinds) == 3 or len(word) >= 32) and len(set(word)) >= 10


def _class(char: int) -> int:
    """0 for marks, else lower, upper, digit."""
    return 1 if 97 <= char <= 122 else 2 if 65 <= char <= 90 else 3 if 48 <= char <= 57 else 0
