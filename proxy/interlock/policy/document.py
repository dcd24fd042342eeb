"""A policy file as text with places: strict YAML in which every value knows its line and column.

Knows YAML and nothing of rules. Refuses what makes YAML surprising or expensive: anchors and aliases (an alias bomb
grows without bound), explicit tags, merge keys, duplicate keys, keys that are not text, deep nesting, several
documents, and files over 1 MiB. Pure: the text comes in, no file is opened here. Spec: policy.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import yaml

from interlock.errors import PolicyError

MAX_BYTES = 1 << 20
MAX_DEPTH = 24
MAX_NODES = 100_000

Path = tuple[str | int, ...]
"""Where a value is: keys and indices from the top."""

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, slots=True)
class Place:
    """A position in a file; line and column count from 1. `source` is the text of that line."""

    file: str
    line: int
    column: int
    source: str = ""

    def say(self, message: str) -> str:
        """Render `file:line:column: message`, the line itself, and a caret under the place."""
        head = f"{self.file}:{self.line}:{self.column}: {message}"
        if not self.source.strip():
            return head
        gutter = f"{self.line:>5} | "
        # Tabs stay tabs in front of the caret, so that it stands under its character in every terminal.
        lead = "".join(c if c == "\t" else " " for c in self.source[: self.column - 1])
        return f"{head}\n{gutter}{self.source}\n{' ' * 5} | {lead}^"


class Document:
    """One parsed file. `data` is plain lists, dicts and scalars; `place(path)` says where a value stands."""

    def __init__(self, name: str, content: bytes) -> None:
        """Parse. Raise PolicyError with place and caret."""
        self.name = name
        self.content = content
        if len(content) > MAX_BYTES:
            raise PolicyError(f"{name}: a policy file has at most {MAX_BYTES} bytes. Split it into packs.")
        try:
            self.text = content.decode("utf-8")
        except UnicodeDecodeError as error:
            raise PolicyError(f"{name}: not UTF-8 at byte {error.start}. Save the file as UTF-8.") from None
        self._lines = self.text.split("\n")
        self._nodes: dict[Path, yaml.Node] = {}
        self._keys: dict[Path, yaml.Node] = {}
        try:
            self._refuse_surprises()
            root = yaml.compose(self.text, Loader=_LOADER)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            where = self._at(mark) if mark else Place(name, 1, 1)
            raise PolicyError(where.say(f"not YAML: {error.problem or error.context}")) from None
        except yaml.YAMLError as error:
            raise PolicyError(f"{name}: not YAML: {str(error).splitlines()[0]}") from None
        if root is None:
            raise PolicyError(f"{name}: empty. A policy file begins with `version: 1`.")
        self.data: Any = self._plain(root, ())

    def place(self, path: Path) -> Place:
        """Return where the value stands, or the nearest value around it that exists."""
        while path and path not in self._nodes:
            path = path[:-1]
        node = self._nodes.get(path)
        return self._at(node.start_mark) if node is not None else Place(self.name, 1, 1, self._lines[0])

    def key_place(self, path: Path) -> Place:
        """Return where the key of a mapping entry stands."""
        node = self._keys.get(path)
        return self._at(node.start_mark) if node is not None else self.place(path)

    def inside(self, path: Path, line: int, column: int) -> Place:
        """Return the place of a position inside a text value: `line` and `column` count from 1 within its value.

        Exact for text on one line and for block text (`|`). Where YAML folded or unescaped the value, the start of
        the value is the honest answer.
        """
        node = self._nodes.get(path)
        if not isinstance(node, yaml.ScalarNode):
            return self.place(path)
        values = str(node.value).split("\n")
        if not 1 <= line <= len(values):
            return self.place(path)
        wanted = values[line - 1]
        start = node.start_mark.line
        for row in range(start, min(start + len(values) + 2, len(self._lines))):
            source = self._lines[row]
            begin = node.start_mark.column if row == start else 0
            at = source.find(wanted, begin)
            if wanted.strip() and at >= 0 and (row - start >= line - 1):
                return Place(self.name, row + 1, at + column, source)
        return self.place(path)

    def _at(self, mark: Any) -> Place:
        source = self._lines[mark.line] if mark.line < len(self._lines) else ""
        return Place(self.name, mark.line + 1, mark.column + 1, source)

    def _refuse_surprises(self) -> None:
        """Walk the events without building anything: nothing here costs more than the length of the text."""
        depth = nodes = documents = 0
        for event in yaml.parse(self.text, Loader=_LOADER):
            place = self._at(event.start_mark)
            if isinstance(event, yaml.AliasEvent):
                raise PolicyError(place.say("aliases (*name) are not part of policy files; write the value out"))
            if getattr(event, "anchor", None):
                raise PolicyError(place.say("anchors (&name) are not part of policy files; write the value out"))
            if isinstance(event, (yaml.ScalarEvent, yaml.CollectionStartEvent)) and event.tag not in (None, "!"):
                raise PolicyError(place.say(f"tags ({event.tag}) are not part of policy files; write a plain value"))
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise PolicyError(place.say("one document a file; put the second one into a file of its own"))
            if isinstance(event, yaml.NodeEvent):
                nodes += 1
                if nodes > MAX_NODES:
                    raise PolicyError(place.say(f"more than {MAX_NODES} values in one file; split it into packs"))
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
                if depth > MAX_DEPTH:
                    raise PolicyError(place.say(f"nested deeper than {MAX_DEPTH}"))
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1

    def _plain(self, node: yaml.Node, path: Path) -> Any:
        self._nodes[path] = node
        match node:
            case yaml.MappingNode():
                return self._mapping(node, path)
            case yaml.SequenceNode():
                return [self._plain(item, (*path, index)) for index, item in enumerate(node.value)]
            case _:
                return self._scalar(node, path)

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        plain: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = key_node.value
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag == "tag:yaml.org,2002:merge":
                raise PolicyError(self._at(key_node.start_mark).say("a key must be plain text"))
            if key in plain:
                raise PolicyError(self._at(key_node.start_mark).say(f"{key!r} is here twice; the second would hide the first"))
            self._keys[(*path, key)] = key_node
            plain[key] = self._plain(value_node, (*path, key))
        return plain

    def _scalar(self, node: yaml.Node, path: Path) -> Any:
        kind = node.tag.rsplit(":", 1)[-1]
        match kind:
            case "str":
                return str(node.value)
            case "bool" if node.value.lower() in ("true", "false"):
                return node.value.lower() == "true"
            case "int" if node.value.lstrip("-").isdigit() and (node.value == "0" or not node.value.lstrip("-").startswith("0")):
                return int(node.value)
            case "null":
                raise PolicyError(self.place(path).say("no value; remove the key or give it one"))
            case _:
                # YAML reads `no`, `on`, `1_000`, `0x1F`, `1.5` and dates as something else than the text that stands there.
                raise PolicyError(self.place(path).say(f"YAML reads {node.value} as {kind}; put it in quotes to mean the text"))
