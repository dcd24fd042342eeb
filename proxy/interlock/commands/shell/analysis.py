"""analyze_shell: bytes of a shell command into an Analysis. A generator that asks the grammars and waits for nothing.

    character gate → shfmt's tree → bash's own reading must equal it → effective commands → wrappers, programs → effects

Closed by construction: whatever is not understood is opaque, and only what has nothing opaque gets a rendering to send.
Knows nothing of policy, people or targets. Spec: commands.md, "Shell".
"""

from __future__ import annotations

from interlock.commands.bounds import TooMany, bounded, refused
from interlock.commands.model import Analysis, Opaque, Stdin, Unreadable
from interlock.commands.programs.rules import Rules
from interlock.commands.shell import characters, reading
from interlock.commands.shell.analyst import Analyst
from interlock.commands.shell.asked import Asked
from interlock.commands.shell.grammars import Asking
from interlock.commands.shell.reading import PARSER


def analyze_shell(asked: Asked, rules: Rules) -> Asking[Analysis]:
    """Analyse one command. Never raises on any text."""
    decoded = characters.check(asked.text)
    if isinstance(decoded, Unreadable):
        return Analysis(unreadable=decoded, parser=PARSER)
    if len(asked.text) > characters.MAX_CLASSIFIED:
        return unknown("too-large-to-classify", asked.text)
    script, blind = yield from reading.read(decoded)
    if isinstance(script, Unreadable):
        return Analysis(unreadable=script, parser=PARSER)
    if script is None:
        return unknown(blind[0].reason if blind else "parser-crash", asked.text)
    analyst = Analyst(rules, asked)
    for found in blind:
        analyst.blind(found)
    analyst.surroundings(decoded, script)
    try:
        yield from analyst.script(script, None, 0)
    except TooMany:
        return refused(Analysis(parser=PARSER))
    return bounded(analyst.analysis(script))


def unknown(reason: str, text: bytes) -> Analysis:
    """Return the analysis of a text of which nothing could be known: for a human only."""
    shown = text[:200].decode("utf-8", "replace")
    return Analysis(opaque=(Opaque(reason, shown, 0, len(text)),), stdin=Stdin.DATA, parser=PARSER)


__all__ = ["Asked", "analyze_shell", "unknown"]
