"""Compile the inner loops that are worth it (docs/adr), where there is a compiler. Hatch runs it for every build of the
package, also the editable one of `make setup`; by hand: `python deploy/native.py`.

Without a compiler or Python's headers the package is built without them and does the same more slowly. INTERLOCK_NATIVE=0 leaves
them out, INTERLOCK_NATIVE=1 makes their absence an error, for those who build packages for others.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # run by hand
    BuildHookInterface = object

ROOT = Path(__file__).resolve().parents[1]
SOURCES = {
    ROOT / "proxy/interlock/commands/sql/_cut.c": [],
    ROOT / "proxy/interlock/postgres/wire/_scan.c": [],
    ROOT / "proxy/interlock/evidence/_chain.c": ["-l:libcrypto.so.3"],
    ROOT / "proxy/interlock/evidence/_scribe.c": ["-l:libz.so.1", "-pthread"],
    ROOT / "proxy/interlock/evidence/_shown.c": [],
}
"""What is compiled, and what it is linked with."""
FLAGS = [
    "-O2",
    "-fPIC",
    "-shared",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-fstack-protector-strong",
    "-D_FORTIFY_SOURCE=2",
    "-Wl,-z,relro,-z,now",
]


def build() -> list[Path]:
    """Compile beside the sources; return the modules that could be."""
    return [built for source, libraries in SOURCES.items() if (built := compiled(source, libraries)) is not None]


def compiled(source: Path, libraries: list[str]) -> Path | None:
    """Compile one module; None where that can't be done."""
    built = source.with_name(source.stem + sysconfig.get_config_var("EXT_SUFFIX"))
    wanted = os.environ.get("INTERLOCK_NATIVE", "")
    if wanted == "0":
        built.unlink(missing_ok=True)
        return None
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")[0]
    command = [compiler, *FLAGS, "-I", sysconfig.get_paths()["include"], str(source), "-o", str(built), *libraries]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        why = done.stderr if done.returncode else ""
    except OSError as error:
        why = str(error)
    if not why:
        return built
    built.unlink(missing_ok=True)
    if wanted == "1":
        raise SystemExit(f"{shlex.join(command)}\n{why}")
    print(f"built without {source.name}: {why.strip().splitlines()[0]}", file=sys.stderr)
    return None


class NativeHook(BuildHookInterface):  # type: ignore[misc,valid-type]
    """Puts the compiled module into the wheel, which is then one for this platform."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        built = build()
        if built and version != "editable":
            build_data["artifacts"] += [str(module.relative_to(ROOT)) for module in built]
            build_data["pure_python"] = False
            build_data["infer_tag"] = True


if __name__ == "__main__":
    print(*build() or ["not compiled"], sep="\n")
