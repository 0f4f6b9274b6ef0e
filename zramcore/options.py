"""What plugins of all families have: the version of the contract they were written for, and options."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from .errors import InvalidValue, ZramError, did_you_mean

API_VERSION = 1
"""Version of the contracts; a plugin class whose ``api_version`` differs is refused at registration."""

OptionValue: TypeAlias = "int | float | bool | str"


@dataclass(frozen=True)
class Option:
    """One option of a plugin: its name, how to read its text, its default and what it does.

    `read` turns the text into the value and raises ValueError or ZramError for text it does not accept.
    """

    name: str
    read: Callable[[str], OptionValue]
    default: OptionValue
    help: str


def read_options(owner: str, declared: Sequence[Option], given: Mapping[str, str]) -> dict[str, OptionValue]:
    """Every declared option, from the text given or its default.

    Raises InvalidValue (EINVAL) naming `owner` and the option for an unknown name or a bad value.
    """
    by_name = {option.name: option for option in declared}
    values: dict[str, OptionValue] = {option.name: option.default for option in declared}
    for name, text in given.items():
        option = by_name.get(name)
        if option is None:
            raise InvalidValue(f"{owner} has no option {name!r}", hint=did_you_mean(name, by_name))
        try:
            values[name] = option.read(text)
        except ZramError as error:
            raise InvalidValue(f"{owner}: option {name}={text}: {error.reason}", hint=option.help) from error
        except ValueError as error:
            raise InvalidValue(f"{owner}: option {name}={text}: {error}", hint=option.help) from error
    return values
