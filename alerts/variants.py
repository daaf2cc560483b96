"""The shipped rules in the shapes that other rulers take: `python alerts/variants.py` writes them beside their source.

Owns what is different about each ruler and nothing else: the rules are written once, in `*.rules.yml`, and a test
fails when a variant is not what this makes of them.

- `batsignal.prometheusrule.yaml`: one `PrometheusRule` for the Prometheus operator.
- `vmalert/*.rules.yml`: for rulers that know neither `keep_firing_for` nor the template function `toTime`, such as
  vmalert 1.79.
"""

import copy
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
OPERATOR_FILE = "batsignal.prometheusrule.yaml"
VMALERT_FOLDER = "vmalert"
HEADER = "# Made from {source} by `make rules`; edit those, not this.\n"
OPERATOR_HEADER = """\
# For the Prometheus operator 0.67 or later: kubectl apply -f {name}
# Your Prometheus takes it if its `ruleSelector` asks for none, or for one of the labels below.
"""
LINE_LENGTH = 116

Rules = dict[str, Any]
# What vmalert 1.79 knows instead gives the date, the time and fractions of a second: the time is cut out of it.
_TO_TIME = re.compile(r"\(([^()]+) \| toTime\)\.UTC\.Format \"(?P<layout>[^\"]+)\"")
_CUT = {
    "15:04:05": r'reReplaceAll "^[^ ]+ ([0-9:]+).*$" "$1"',
    "2006-01-02 15:04:05": r'reReplaceAll "^([^ ]+ [0-9:]+).*$" "$1"',
}


def sources() -> dict[str, Rules]:
    """Return every rules file by its name, parsed; anchors are resolved."""
    return {path.name: yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted(HERE.glob("*.rules.yml"))}


def for_operator(files: Mapping[str, Rules]) -> Rules:
    """Return one `PrometheusRule` with the groups of all files."""
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {
            "name": "batsignal",
            "labels": {"app.kubernetes.io/name": "batsignal", "prometheus": "k8s", "role": "alert-rules"},
        },
        "spec": {"groups": [group for rules in files.values() for group in rules["groups"]]},
    }


def without_keeping(rules: Rules) -> Rules:
    """Return rules that keep firing by themselves where the ruler cannot be told to.

    A rule without a hold looks at its own past instead. One with a hold (`for`) ends at once: a past in it would let a
    single bad moment pass for a minute of them.
    """
    changed = copy.deepcopy(rules)
    for group in changed["groups"]:
        for rule in group["rules"]:
            kept = rule.pop("keep_firing_for", None)
            if kept is not None and rule.get("for", "0s") == "0s":
                rule["expr"] = f"last_over_time(({rule['expr']})[{kept}:{group['interval']}])"
            rule["annotations"] = {name: _without_to_time(text) for name, text in rule["annotations"].items()}
    return changed


def _without_to_time(text: str) -> str:
    """Spell a time of day without `toTime`.

    >>> _without_to_time('{{ (. | first | value | toTime).UTC.Format "15:04:05" }} UTC')
    '{{ . | first | value | humanizeTimestamp | reReplaceAll "^[^ ]+ ([0-9:]+).*$" "$1" }} UTC'
    """
    return _TO_TIME.sub(lambda found: f"{found[1]} | humanizeTimestamp | {_CUT[found['layout']]}", text)


def variants() -> Iterator[tuple[Path, str]]:
    """Yield each file that is made, with its text."""
    files = sources()
    operator = OPERATOR_HEADER.format(name=OPERATOR_FILE) + HEADER.format(source="*.rules.yml")
    yield HERE / OPERATOR_FILE, operator + _dump(for_operator(files))
    for name, rules in files.items():
        yield HERE / VMALERT_FOLDER / name, HEADER.format(source=f"../{name}") + _dump(without_keeping(rules))


class _Dumper(yaml.SafeDumper):
    """Spells everything out, folds what is long, and leaves the order alone."""

    def ignore_aliases(self, _: object) -> bool:
        return True

    def represent_text(self, text: str) -> yaml.ScalarNode:
        """Fold a text that would not fit on a line."""
        long = len(text) > LINE_LENGTH / 2 or "{{" in text
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=">" if long else None)


_Dumper.add_representer(str, _Dumper.represent_text)


def _dump(data: Rules) -> str:
    text: str = yaml.dump(data, Dumper=_Dumper, sort_keys=False, width=LINE_LENGTH, allow_unicode=True)
    return text


def main() -> None:
    """Write all variants; those whose source is gone are removed."""
    made = dict(variants())
    folder = HERE / VMALERT_FOLDER
    folder.mkdir(exist_ok=True)
    for path in folder.glob("*.rules.yml"):
        if path not in made:
            path.unlink()
    for path, text in made.items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
