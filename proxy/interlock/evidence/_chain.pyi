from interlock.evidence.forms import FormedDraft

def chained(
    drafts: tuple[FormedDraft, ...], seq: int, prev: bytes, mono_us: int, name: bytes, ts: bytes, beginnings: list[bytes], /
) -> tuple[bytes, bytes, bytes]: ...
