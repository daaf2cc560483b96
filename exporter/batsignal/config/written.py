"""What was written down as configuration: its values, and which line each of its keys stands in.

Owns the YAML (strict: a key that stands twice is an error) and the places in it, so that every error can name file and
line, also one that is found only when the values are judged. It does not know what may be configured, and fills in no
secret: `source` does. Every error is one line.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from batsignal import small_file
from batsignal.config.wording import spelled
from batsignal.errors import ConfigError

_MERGED_KEYS_MOST = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What was read, what to call it in an error, and the nodes of the file that it was read from, if it was one."""

    name: str
    content: dict[Any, Any] = field(repr=False)
    root: yaml.Node | None = field(default=None, repr=False)
    is_file: bool = False

    def place(self, location: Sequence[int | str] = ()) -> str:
        """Return `file:line` of the key that a location leads to, or of the last part of the way that is there.

        A secret whose file is named in its place is where that is. What is no file has no lines.
        """
        if not self.is_file:
            return self.name
        node, line = self.root, 0 if self.root is None else self.root.start_mark.line
        for part in location:
            found = _step(node, part) or _step(node, f"{part}_file")
            if found is None:
                break
            node, line = found
        return f"{self.name}:{line + 1}"


def _step(node: yaml.Node | None, part: int | str) -> tuple[yaml.Node, int] | None:
    """Return what stands at a key or a number of a node, and the line of that key or entry, counted from 0."""
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part], node.value[part].start_mark.line
    if isinstance(node, yaml.MappingNode):
        # The last of them counts: what a mapping merges has been put in front of its own.
        for key, value in reversed(node.value):
            if key.value == str(part):
                return value, key.start_mark.line
    return None


def read_mapping(path: Path, keys: str) -> Source:
    """Return what a YAML file says, an empty one nothing; `keys` are named where it is no mapping.

    Raises ConfigError.
    """
    root, content = _parsed(path, _text(path))
    source = Source(name=str(path), content={} if content is None else content, root=root, is_file=True)
    if not isinstance(source.content, dict):
        raise ConfigError(f"{source.place()}: expected a mapping with {keys}, got {spelled(content)}")
    return source


def _text(path: Path) -> str:
    try:
        content = small_file.read(path)
    except OSError as exc:
        raise ConfigError(f"{path}: cannot be read: {exc.strerror or exc}") from exc
    try:
        # utf-8-sig: editors on some systems put a byte order mark first.
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line = content.count(b"\n", 0, exc.start) + 1
        raise ConfigError(
            f"{path}:{line}: expected a text file in UTF-8, got other bytes at offset {exc.start}"
        ) from exc


def _parsed(path: Path, text: str) -> tuple[yaml.Node | None, Any]:
    """Return the nodes of a YAML file and what they say."""
    try:
        loader = _StrictLoader(text)
    except yaml.reader.ReaderError as exc:
        line = text.count("\n", 0, exc.position) + 1
        reason = f"unacceptable character #x{exc.character:04x}: {exc.reason}"
        raise ConfigError(f"{path}:{line}: expected valid YAML: {reason}") from exc
    try:
        root = loader.get_single_node()
        return root, None if root is None else loader.construct_document(root)
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        where = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        raise ConfigError(f"{path}{where}: expected valid YAML: {exc.problem or exc.context}") from exc
    except RecursionError as exc:
        raise ConfigError(f"{path}:{loader.line + 1}: expected valid YAML: nested too deeply") from exc
    finally:
        loader.dispose()


class _StrictLoader(yaml.SafeLoader):
    """YAML's safe loader, less its habit of letting the last of two equal keys win in silence.

    Merges (`<<`) are bounded, too: some that nest make millions of keys out of ten lines.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._merge_depth = 0
        self._merged_keys = 0

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Return what a node says; what looks like a date or a number and is none gets its place, too."""
        try:
            return super().construct_object(node, deep=deep)
        except ValueError as exc:
            problem = str(exc).partition("\n")[0]
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from exc

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Put into a mapping what it merges; the library calls this anew for each that is merged into another."""
        self._merge_depth += 1
        super().flatten_mapping(node)
        self._merge_depth -= 1
        if self._merge_depth:
            self._merged_keys += len(node.value)
        if self._merged_keys > _MERGED_KEYS_MOST:
            problem = f"its merges (<<) come to more than {_MERGED_KEYS_MOST} keys"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


def _unique_mapping(loader: _StrictLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        if key_node.tag == "tag:yaml.org,2002:merge":  # `<<`, which construct_mapping resolves
            continue
        key = loader.construct_object(key_node, deep=True)
        if isinstance(key, str) and key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} stands twice", key_node.start_mark)
        if isinstance(key, str):
            seen.add(key)
    return loader.construct_mapping(node, deep=True)


_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique_mapping)
