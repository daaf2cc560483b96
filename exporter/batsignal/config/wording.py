"""Puts what pydantic found wrong into one line that names the key and what was expected there.

Owns the words. What is expected stands at each field of the models, as its description; they come in as an argument.
A value that may be a secret is never spelled: not of a secret key, not a text with a login in it.
"""

import datetime as dt
import difflib
import re
from collections.abc import Iterator
from typing import get_args

from pydantic import BaseModel
from pydantic_core import ErrorDetails

Location = tuple[int | str, ...]

_SPELLED_CHARS_MAX = 60
_PLAIN_KEY = re.compile(r"[\w-]{1,60}")
# A path has its double slashes made one by the time that it is spelled.
_CONNECTION_STRING = re.compile(
    r"postgres(?:ql)?:/|:[^\n]*@|\n|\b(?:host|hostaddr|port|dbname|user|password|passfile|service|sslmode)\s*=",
    re.IGNORECASE,
)
_NUMBER_BITS_MOST = 256
_MAY_BE_SECRET = re.compile(r"://.*[@?]|passw|secret|token", re.IGNORECASE | re.DOTALL)


class MisfitError(ValueError):
    """Keys that are each right do not go together; knows where the one stands that the text is about."""

    def __init__(self, location: Location, text: str) -> None:
        super().__init__(text)
        self.location = location


def explained(errors: list[ErrorDetails], model: type[BaseModel], secret_keys: tuple[str, ...]) -> tuple[Location, str]:
    """Return where the most telling of the errors stands, and what it is, as one line.

    Each of `secret_keys` may be read from `KEY_file`, too.
    """
    # An unknown key explains a missing one: say it first.
    error = min(errors, key=lambda one: one["type"] not in {"extra_forbidden", "invalid_key"})
    location = error["loc"]
    fault = error.get("ctx", {}).get("error") if error["type"] == "value_error" else None
    if isinstance(fault, MisfitError):
        return fault.location, str(fault)  # the model's own check has said it all
    return location, _explained(error, location, "" if fault is None else str(fault), model, secret_keys)


def _explained(
    error: ErrorDetails, location: Location, detail: str, model: type[BaseModel], secret_keys: tuple[str, ...]
) -> str:
    if error["type"] in {"extra_forbidden", "invalid_key"}:
        *home, key = location
        return f"{_path((*home, str(key)))}: unknown key; expected {_known(location, model, secret_keys)}"
    expected = _expected(location, model)
    if error["type"] == "missing":
        return f"{_path(location)}: missing; expected {expected}"
    value = error["input"]
    # Also of what stands inside a secret's value, whatever it is made of.
    secret = any(part in secret_keys for part in location)
    got = "a text that cannot be read so" if secret and isinstance(value, str) else spelled(value)
    return f"{_path(location)}: expected {expected}, got {got}" + (f": {detail}" if detail else "")


def spelled(value: object) -> str:
    """Return a value as a person would write it, as far as it is safe to show.

    >>> spelled("db1"), spelled(True), spelled([1]), spelled("postgresql://bob:pw@db1")
    ("'db1'", 'true', 'a list', 'something else')
    """
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple | set):
        return "a list" if value else "an empty list"
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    text = _text_of(value)
    if _MAY_BE_SECRET.search(text):
        return "something else"  # most likely a connection string in the wrong place
    return text if len(text) <= _SPELLED_CHARS_MAX else text[: _SPELLED_CHARS_MAX - 3] + "..."


def _text_of(value: object) -> str:
    if isinstance(value, int) and value.bit_length() > _NUMBER_BITS_MOST:
        return "a number that is far too large"  # which Python may refuse to spell
    return str(value) if isinstance(value, dt.date) else repr(value)


def is_no_path(text: str) -> bool:
    """Whether a text in a path's place is rather a connection string, or the content of the file: not to be spelled.

    >>> is_no_path("/run/secrets/dsn"), is_no_path("postgresql:/bob:pw@db1/shop"), is_no_path("host=db1 password=pw")
    (False, True, True)
    """
    return _CONNECTION_STRING.search(text) is not None


def _path(location: Location) -> str:
    """Spell a location as people write it.

    >>> _path(("servers", 0, "dsn"))
    'servers[0].dsn'
    """
    text = ""
    for part in location:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            shown = part if _PLAIN_KEY.fullmatch(part) else spelled(part)
            text += f".{shown}" if text else shown
    return text


def _known(location: Location, model: type[BaseModel], secret_keys: tuple[str, ...]) -> str:
    keys = list(_home(location[:-1], model).model_fields)
    keys += [f"{key}_file" for key in keys if key in secret_keys and f"{key}_file" not in keys]
    near = difflib.get_close_matches(str(location[-1]), keys, n=1)
    return f"{near[0]} (did you mean that?)" if near else f"one of {', '.join(keys)}"


def _expected(location: Location, model: type[BaseModel]) -> str:
    last = max(index for index, part in enumerate(location) if isinstance(part, str))
    field = _home(location[:last], model).model_fields.get(str(location[last]))
    entry = next(_models_in(field.annotation), None) if field else None
    if last < len(location) - 1 and entry is not None:
        required = [name for name, one in entry.model_fields.items() if one.is_required()]
        return f"a mapping with {' and '.join(required)}"
    return (field.description if field else None) or "something else"


def _home(location: Location, model: type[BaseModel]) -> type[BaseModel]:
    """Return the model that a location leads to, as far as it leads."""
    for part in location:
        field = model.model_fields.get(part) if isinstance(part, str) else None
        model = next(_models_in(field.annotation), model) if field else model
    return model


def _models_in(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models_in(part)
