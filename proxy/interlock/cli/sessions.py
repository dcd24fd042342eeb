"""`interlock sessions`: what was recorded: list, show, replay, export; and what is live: list and end it.

A session is named by its id, asked of the daemon or read from a data directory, or by the folder of an exported bundle.
"""

from __future__ import annotations

import io
import json
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Protocol

import typer

from interlock.cli.approvals import connect
from interlock.cli.client import Client
from interlock.cli.options import Format, Server, Token
from interlock.cli.output import Output, columns, data, emit_json, reporting, say
from interlock.errors import EvidenceError, Reason
from interlock.evidence import cast
from interlock.evidence.archive import Archive, Bundle
from interlock.evidence.cast import Recorded
from interlock.evidence.sealing import SEAL
from interlock.evidence.terminal import visible

app = typer.Typer(help="Read what was recorded, and end what is live.", no_args_is_help=True)

DataDir = Annotated[Path | None, typer.Option(help="Read this data directory and not the daemon.", envvar="INTERLOCK_DATA_DIR")]
Named = Annotated[str, typer.Argument(metavar="SESSION", help="Id of a session, or folder of an exported bundle.")]

LONGEST_PAUSE = 2.0
"""Seconds that a replay waits at most between two events."""


class Source(Protocol):
    """Where sessions are read from."""

    def list(self) -> Any: ...

    def show(self, session: str) -> dict[str, Any]: ...

    def recorded(self, session: str) -> Iterable[Recorded]:
        """Return the events so far; also of a session that is still open."""
        ...

    def export(self, session: str, out: Path) -> Path: ...


class LocalSource:
    """A data directory."""

    def __init__(self, data_dir: Path) -> None:
        self._archive = Archive(data_dir)

    def list(self) -> Any:
        return self._archive.list()

    def show(self, session: str) -> dict[str, Any]:
        return self._archive.show(session)

    def recorded(self, session: str) -> Iterable[Recorded]:
        return self._archive.bundle(session).events()

    def export(self, session: str, out: Path) -> Path:
        return self._archive.export(session, out)


class DaemonSource:
    """The daemon's API; it asks for the scope `sessions:read`."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def list(self) -> Any:
        return self._client.get("/v1/sessions")["sessions"]

    def show(self, session: str) -> dict[str, Any]:
        return dict(self._client.get(f"/v1/sessions/{session}"))

    def recorded(self, session: str) -> Iterable[Recorded]:
        for event in self._client.get(f"/v1/sessions/{session}/events")["events"]:
            disclosed = event.pop("disclosed")
            yield Recorded(event, disclosed)

    def export(self, session: str, out: Path) -> Path:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise EvidenceError(f"{out} exists; name a folder that does not", reason=Reason.EVIDENCE_INVALID)
        packed = self._client.download(f"/v1/sessions/{session}/bundle")
        out.absolute().parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.absolute().parent) as scratch:
            _unpack(packed, Path(scratch))
            (Path(scratch) / session).chmod(0o700)  # as in data_dir: what was committed to in secret stands in it in clear
            (Path(scratch) / session).rename(out)
        return out


def _unpack(packed: bytes, folder: Path) -> None:
    """Unpack folders and plain files that stay inside `folder`. Raise EvidenceError for anything else.

    By hand, because the safe `filter` of tarfile is not in every Python 3.11.
    """
    with tarfile.open(fileobj=io.BytesIO(packed), mode="r:gz") as tar:
        for member in tar:
            place = folder / member.name
            if not place.resolve().is_relative_to(folder.resolve()) or not (member.isfile() or member.isdir()):
                raise EvidenceError("the daemon's bundle holds more than plain files", reason=Reason.EVIDENCE_INVALID)
            if member.isdir():
                place.mkdir(parents=True, exist_ok=True)
                continue
            content = tar.extractfile(member)
            assert content is not None
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content.read())


def open_source(server: str | None, data_dir: Path | None) -> Source:
    """Return the data directory when one is named, else the daemon."""
    return LocalSource(data_dir) if data_dir is not None else DaemonSource(Client(server))


def _exported(session: str) -> Bundle | None:
    folder = Path(session)
    return Bundle(folder) if (folder / SEAL).is_file() else None


@app.command("list")
@reporting
def list_(server: Server = None, data_dir: DataDir = None, output: Format = Output.TEXT) -> None:
    """List sessions, newest first."""
    rows = open_source(server, data_dir).list()
    if output is Output.JSON:
        emit_json({"v": 1, "sessions": rows})
        return
    if not rows:
        say("no sessions yet.")
        return
    table: list[tuple[str, ...]] = [("ID", "STATUS", "WHO", "TARGET", "OPENED", "EVENTS")]
    for row in rows:
        who, target = row.get("handle") or row.get("agent"), row.get("target")
        cells = (row["id"], row["status"], who, target, row.get("opened"), row.get("events"))
        table.append(tuple("" if cell is None else visible(str(cell)) for cell in cells))
    columns(table)


@app.command()
@reporting
def show(session: Named, server: Server = None, data_dir: DataDir = None, output: Format = Output.TEXT) -> None:
    """Show who, where, when and how it ended."""
    exported = _exported(session)
    shown = {**exported.summary(), "seal": exported.seal()} if exported else open_source(server, data_dir).show(session)
    if output is Output.JSON:
        emit_json({"v": 1, **shown})
        return
    for name, value in shown.items():
        if name != "seal" and value not in (None, ""):
            data.print(f"{name:10} {visible(str(value))}", markup=False)
    if shown["seal"]:
        data.print(f"{'head':10} {visible(str(shown['seal']['head']))}", markup=False)


@app.command()
@reporting
def replay(
    session: Named,
    server: Server = None,
    data_dir: DataDir = None,
    check: Annotated[bool, typer.Option("--check", help="Only make the recording anew and compare it with the seal.")] = False,
    cast_file: Annotated[Path | None, typer.Option("--cast", help="Write the recording for asciinema to this file.")] = None,
    speed: Annotated[float, typer.Option(min=0.1, help="Times as fast.")] = 1.0,
) -> None:
    """Play a session in this terminal. Without a terminal, print it at once."""
    if check:
        with _sealed(session, server, data_dir) as bundle:
            digest = bundle.check_recording()
        say(f"the recording is the one that was sealed: sha256 {digest}")
        return
    exported = _exported(session)
    lines = cast.render(exported.events() if exported else open_source(server, data_dir).recorded(session))
    if cast_file is not None:
        with cast_file.open("xb") as file:
            file.writelines(lines)
        say(f"written to {cast_file}; play it with: asciinema play {cast_file}")
        return
    play(lines, speed=speed, waiting=sys.stdout.isatty())


@app.command()
@reporting
def export(
    session: Named,
    out: Annotated[Path, typer.Argument(help="Folder to make.")],
    server: Server = None,
    data_dir: DataDir = None,
) -> None:
    """Write a sealed session as a bundle that `interlock verify` and ssh-keygen check anywhere."""
    open_source(server, data_dir).export(session, out)
    say(f"written to {out}; check it with: interlock verify {out} --trust DIR")


@app.command()
@reporting
def live(server: Server = None, token_file: Token = None, output: Format = Output.TEXT) -> None:
    """List the sessions that are open right now."""
    rows = connect(server, token_file).get("/v1/sessions/live")["sessions"]
    if output is Output.JSON:
        emit_json({"v": 1, "sessions": rows})
        return
    if not rows:
        say("no session is open.")
        return
    table: list[tuple[str, ...]] = [("ID", "WHO", "TARGET", "CLIENT", "OPENED")]
    for row in rows:
        cells = (row["id"], row["principal"], row["target"], row["client"], row["opened"])
        table.append(tuple("" if cell is None else visible(str(cell)) for cell in cells))
    columns(table)


@app.command()
@reporting
def kill(
    session: Annotated[str, typer.Argument(metavar="SESSION", help="Id of a live session.")],
    server: Server = None,
    token_file: Token = None,
    reason: Annotated[str, typer.Option(help="Kept in the transcript.")] = "",
    output: Format = Output.TEXT,
) -> None:
    """End a live session: nothing more is released in it. For administrators."""
    answer = connect(server, token_file).post(f"/v1/sessions/{session}/kill", {"reason": reason})
    if output is Output.JSON:
        emit_json({"v": 1, **answer})
    else:
        say(f"{session} was ended")


@contextmanager
def _sealed(session: str, server: str | None, data_dir: Path | None) -> Iterator[Bundle]:
    """Yield the bundle of a sealed session, fetched when it is not here."""
    exported = _exported(session)
    if exported is not None:
        yield exported
        return
    with tempfile.TemporaryDirectory() as scratch:
        yield Bundle(open_source(server, data_dir).export(session, Path(scratch) / "bundle"))


def play(lines: Iterable[bytes], *, speed: float, waiting: bool) -> None:
    """Write the output of a recording; what reaches the terminal was made harmless when it was derived."""
    before = 0.0
    for number, line in enumerate(lines):
        if number == 0:
            continue  # the header
        at, code, text = json.loads(line)
        if code != "o":
            continue
        if waiting:
            time.sleep(min(LONGEST_PAUSE, max(0.0, at - before) / speed))
        before = at
        sys.stdout.write(text if waiting else text.replace("\r\n", "\n"))
        sys.stdout.flush()
