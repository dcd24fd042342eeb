"""Read interlock.yaml and say of all that is wrong with it where and what. An unknown key is an error that names the nearest
valid one.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from interlock.config.values import Strict
from interlock.config.whole import Config
from interlock.errors import ConfigError

LATER = frozenset(
    (
        "evidence.log_key", "evidence.replay_identity", "evidence.retain", "evidence.witness",
        "listen.proxy_protocol_from", "objects",
    )
)  # fmt: skip
"""Keys of the contract whose controls this version can't enforce. Asking for one refuses to start; none is ignored. An empty
list asks for none."""
_ENV = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def load(path: Path) -> Config:
    """Read and validate a configuration file whole. Raise ConfigError with every problem, one a line."""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not text"
        raise ConfigError(
            f"{path} can't be read: {why}. Name another file with --config, or write one with `interlock init`."
        ) from None
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {error}") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path} must be a mapping that begins with `version: 1`")
    return parse(data, base=path.parent.resolve(), source=str(path))


def parse(data: Mapping[str, Any], *, base: Path, source: str = "configuration") -> Config:
    """Validate data that YAML gave. Raise ConfigError."""
    try:
        return Config.model_validate({**_asked(_expand(data)), "base": base})
    except ValidationError as error:
        lines = [_explain(dict(problem), data) for problem in error.errors(include_input=False, include_url=False)]
        raise ConfigError(f"{source}:\n" + "\n".join(f"  {line}" for line in lines)) from None


def _asked(data: Any) -> dict[str, Any]:
    """Return the data without empty lists of what is for later."""
    asked = dict(data)
    for section, inner in data.items():
        if isinstance(inner, dict):
            asked[section] = {key: value for key, value in inner.items() if value != [] or f"{section}.{key}" not in LATER}
    return asked


def _expand(value: Any) -> Any:
    """Replace `${NAME}` in strings; a variable that is not set is an error."""
    if isinstance(value, dict):
        return {k: _expand(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_expand(v) for v in value]
    if isinstance(value, str):
        return _ENV.sub(_from_environment, value)
    return value


def _from_environment(found: re.Match[str]) -> str:
    try:
        return os.environ[found[1]]
    except KeyError:
        raise ConfigError(f"${{{found[1]}}} is not set in the environment; set it or remove the reference") from None


def _explain(problem: dict[str, Any], data: Mapping[str, Any]) -> str:
    """Say where and what; for an unknown key also the nearest valid one."""
    place = ".".join(str(part) for part in problem["loc"])
    if problem["type"] != "extra_forbidden":
        return f"{place or 'top level'}: {problem['msg'].removeprefix('Value error, ')}"
    if place in LATER:
        return f"{place}: this version can't enforce it, so it does not start with it; remove the key"
    key = str(problem["loc"][-1])
    near = difflib.get_close_matches(key, [known for known in _known_keys() if known != key], n=1)
    return f"{place}: unknown key {key!r}" + (f"; did you mean {near[0]!r}?" if near else "")


def _known_keys() -> list[str]:
    models: list[type[Strict]] = [Config, *Strict.__subclasses__()]
    return sorted({field.alias or name for model in models for name, field in model.model_fields.items()})
