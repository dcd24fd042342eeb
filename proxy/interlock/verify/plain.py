"""The findings in plain words, for people. Texts of others are shown so that no terminal obeys them."""

from __future__ import annotations

from collections.abc import Iterator

from interlock.verify.finding import Report


def shown(text: str) -> str:
    """Return the text with everything that is not printable made visible."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" if ord(c) < 256 else f"\\u{{{ord(c):x}}}" for c in text)


def lines(report: Report) -> Iterator[str]:
    verdict = {
        "verified": "VERIFIED",
        "aborted": "VERIFIED AS ABORTED",
        "incomplete": "INCOMPLETE",
        "failed": "DOES NOT VERIFY",
    }[report.result]
    yield f"{shown(report.bundle)}: {verdict}"
    if report.session:
        who = f"{shown(report.agent or 'nobody')} at {shown(report.target or 'no target')}"
        what = who if report.kind == "session" else f"journal of {shown(report.node)}"
        yield f"  {report.kind} {report.session}: {what}, {shown(report.opened)} to {shown(report.closed)}"
    if report.ok:
        for check in report.checks:
            yield f"  ok    {check}"
    for problem in report.problems:
        where = f"event {problem.seq}: " if problem.seq is not None else ""
        yield f"  {'BAD ' if problem.severity == 'invalid' else 'MISS'}  {problem.check}: {where}{shown(problem.message)}"
    if report.dropped:
        yield f"  and {report.dropped} more"
    for note in report.notes:
        yield f"  note  {shown(note)}"
    if report.kind == "session" and report.session:
        yield f"  released commands: {len(report.released)}" + (" (as far as they can be believed)" if not report.ok else "")
    for released in report.released:
        text = "[text missing]" if released.text is None else shown(released.text)
        how = "approved by " + ", ".join(map(shown, released.approved_by)) if released.approved_by else released.verdict
        yield f"  {released.seq:>6}  {how} ({shown(released.rule)}): {text}"
        if released.sent is not None and released.sent != released.text:
            yield f"          sent as: {shown(released.sent)}"
