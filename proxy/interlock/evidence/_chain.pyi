from collections.abc import Callable

from interlock.evidence.events import EventDraft
from interlock.evidence.forms import Form
from interlock.evidence.linefile import LineFile

class Shape:
    bare: tuple[bytes, ...]
    committing: tuple[bytes, ...]
    tails: tuple[bytes, ...]
    refers: bool

class FormedDraft:
    def __init__(self, form: Form, ref: int | None, given: tuple[bytes, ...], /) -> None: ...
    @property
    def form(self) -> Form: ...
    @property
    def given(self) -> tuple[bytes, ...]: ...
    @property
    def ref(self) -> int | None: ...
    def placed(self, seq: int, /) -> EventDraft: ...

class Tally:
    files: list[LineFile]
    waiting: int
    most: int
    def __init__(self, most: int) -> None: ...

class End:
    fresh: list[bytes]
    tally: Tally | None
    size: int
    fd: int
    unsynced: bool
    lengthy: bool
    def noted(self, data: bytes, /) -> None: ...

class Chain:
    seq: int
    mono_us: int
    wall_us: int
    prev: bytes
    open: bool
    beginnings: list[bytes]
    known: set[Form]
    @property
    def base_us(self) -> int: ...
    def __init__(
        self,
        name: bytes,
        events: LineFile,
        disclosures: object,
        wall_ns: Callable[[], int],
        monotonic_ns: Callable[[], int],
        meet: Callable[[Form], bool],
        draw: Callable[[int], None],
    ) -> None: ...
    def append(self, *drafts: object) -> int | None: ...

def encoded_tail(name: bytes, value: bytes, /) -> bytes: ...
