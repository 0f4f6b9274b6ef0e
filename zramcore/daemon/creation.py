"""What `create` and the policies of the API ask for, read from JSON and checked as a config file would be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..attributes import Attribute
from ..config import Config, PolicyConfig, Where, absolute_listener, check, read_device, resolve
from ..config.model import to_text
from ..errors import ConfigError, InvalidValue, ZramError, did_you_mean
from ..interfaces import Catalogue
from ..kernel import KernelControl

KEYS = ("name", "device", "directory", "nbd")


@dataclass(frozen=True)
class Creation:
    """A checked request for one device, and where it alone is to be served over NBD."""

    config: Config
    nbd: tuple[str, ...]


def parse_creation(
    request: object, catalogue: Catalogue, attributes: Mapping[str, Attribute], kernel: KernelControl
) -> Creation:
    """Read ``{"name": ..., "device": {keys of a config file}, "directory": ..., "nbd": [...]}``.

    `directory` is what relative paths are relative to. Raises InvalidValue (EINVAL) for the first thing wrong with it.
    """
    if not isinstance(request, dict):
        raise InvalidValue("a device is asked for with a JSON object", hint=f"its keys: {', '.join(KEYS)}")
    for key in request:
        if key not in KEYS:
            raise InvalidValue(f"{key!r} is not a key of a request", hint=did_you_mean(str(key), KEYS))
    name, table = request.get("name"), request.get("device", {})
    directory, nbd = request.get("directory", "/"), request.get("nbd", [])
    if not isinstance(name, str) or not isinstance(table, dict):
        raise InvalidValue("a device needs a name, and its keys as an object", attribute="name", value=name)
    if not isinstance(directory, str) or not directory.startswith("/") or "\0" in directory:
        raise InvalidValue("is not an absolute path", attribute="directory", value=directory)
    if not isinstance(nbd, list) or not all(isinstance(spec, str) for spec in nbd):
        raise InvalidValue("is not a list of addresses", attribute="nbd", hint="unix:PATH or tcp:HOST:PORT")
    try:
        config, problems = read_device(name, table, Path(directory))
    except ConfigError as error:
        raise _plain(error, name) from error
    config = resolve(config, kernel)
    problems = problems or check(config, catalogue, attributes, kernel)
    if problems:
        raise _plain(problems[0], name)
    return Creation(config, tuple(absolute_listener(spec, Path(directory)) for spec in nbd))


def parse_policies(request: object) -> list[PolicyConfig]:
    """Read ``[{"name": "idle", "options": {"age": "3h"}}, ...]``. Raises InvalidValue (EINVAL)."""
    if not isinstance(request, list):
        raise InvalidValue("policies are a JSON list", hint='[{"name": "idle", "options": {"age": "3h"}}]')
    return [_policy(each, index) for index, each in enumerate(request)]


def _policy(table: object, index: int) -> PolicyConfig:
    if not isinstance(table, dict) or not isinstance(table.get("name"), str):
        raise InvalidValue(f"policy {index} has no name", hint='{"name": "idle", "options": {"age": "3h"}}')
    given: object = table.get("options", {})
    if not isinstance(given, dict):
        raise InvalidValue(f"the options of policy {table['name']} are not an object")
    options = {}
    for key, value in given.items():
        text = to_text(value)
        if text is None:
            raise InvalidValue(f"option {key} of policy {table['name']} is not a number, text or boolean")
        options[str(key)] = text
    return PolicyConfig(table["name"], options, Where("request", f"policy[{index}]"))


def _plain(error: ConfigError, name: str) -> ZramError:
    """An error of a file as one of a request: the key without ``device.NAME.`` is the attribute."""
    key = error.key.removeprefix("device.").removeprefix(f'"{name}"').removeprefix(name).removeprefix(".")
    return InvalidValue(error.reason, attribute=key or name, hint=error.hint)


def names(policies: Sequence[PolicyConfig]) -> str:
    """Policies and their options as text: ``idle(age=3h), huge``."""
    texts = []
    for policy in policies:
        options = ",".join(f"{key}={value}" for key, value in policy.options.items())
        texts.append(f"{policy.name}({options})" if options else policy.name)
    return ", ".join(texts)
