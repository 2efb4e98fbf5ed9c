"""What ``hasten fleet`` can be asked."""

from __future__ import annotations

import argparse
from typing import Any

from hasten.cli import kinds

MODELS = ("mlp", "conv", "gru")
_OF_A_FLEET = ("--update", "--model", "--prove", "--out", "--json", "--html", "--quiet")  # that is trained already


class _Given(argparse.Action):
    """Stores a value, or True, and notes in ``given`` that the option was: its default may be given, too."""

    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: Any = None) -> None:
        setattr(namespace, self.dest, True if self.nargs == 0 else values)
        namespace.given = [*getattr(namespace, "given", ()), self.option_strings[0]]


def add(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "file", metavar="FILE", help="rows (.parquet, also a folder, .csv, .csv.gz), or a fleet that --out wrote"
    )
    for title, options in _GROUPS.items():
        group = parser.add_argument_group(title)
        for name, how in options.items():
            group.add_argument(name, action=_Given, **{**how, "help": how["help"] + _unless_given(how)})


def _unless_given(how: dict[str, Any]) -> str:
    """What holds where the option is left out; empty where nothing does, or its help says so."""
    default = how.get("default")
    return f"; {default} unless given" if default and "unless given" not in how["help"] else ""


def given(options: argparse.Namespace, *names: str) -> list[str]:
    """Which of these options were typed, in this order."""
    typed = getattr(options, "given", ())
    return [name for name in names if name in typed]


def of_training(options: argparse.Namespace) -> list[str]:
    """Options that were typed and say how rows are trained."""
    return given(options, *(name for group in _GROUPS.values() for name in group if name not in _OF_A_FLEET))


def names(text: str) -> list[str]:
    """A list of columns."""
    return [name.strip() for name in text.split(",") if name.strip()]


_FLAG: dict[str, Any] = {"nargs": 0, "default": False}
_GROUPS: dict[str, dict[str, dict[str, Any]]] = {
    "data": {
        "--by": {"metavar": "COLUMN", "help": "the column of keys: one network each"},
        "--target": {"metavar": "COLUMN", "help": "the column to learn"},
        "--features": {"type": names, "default": [], "metavar": "A,B", "help": "columns to learn from"},
        "--time": {"default": "", "metavar": "COLUMN", "help": "the column that orders a key's rows"},
        "--window": {"type": kinds.count(0), "default": 0, "metavar": "N", "help": "rows of a series that are seen"},
        "--horizon": {
            "type": kinds.count(0),
            "default": 0,
            "metavar": "N",
            "help": "rows of a series that are predicted",
        },
        "--gaps": {
            "default": "skip",
            "choices": ("skip", "join"),
            "help": "windows over missing times: left out, or learned",
        },
        "--update": {"metavar": "NEWROWS", "help": "a file of new rows, learned at a cost that does not grow"},
        "--season": {
            "type": kinds.count(0),
            "default": 0,
            "metavar": "N",
            "help": "rows of one season, for the naive forecast",
        },
    },
    "training": {
        "--model": {"help": "mlp (unless given), conv, gru, or module:factory (called with inputs and outputs)"},
        "--loss": {"default": "mse", "help": "mse, mae, huber, quantile:0.9, cross_entropy or bce"},
        "--optimizer": {"default": "adam", "choices": ("sgd", "adam", "adamw"), "help": "as in torch.optim"},
        "--lr": {"type": kinds.positive, "default": 1e-3, "help": "learning rate"},
        "--epochs": {
            "type": kinds.count(1),
            "default": 20,
            "metavar": "N",
            "help": "passes over a key's rows, at most",
        },
        "--batch-size": {"type": kinds.count(1), "default": 64, "metavar": "N", "help": "rows of one step"},
        "--patience": {
            "type": kinds.count(1),
            "default": 5,
            "metavar": "N",
            "help": "epochs without a better held-out loss",
        },
        "--hold-out": {
            "type": kinds.share,
            "default": 0.2,
            "metavar": "SHARE",
            "help": "of a key's last rows; 0 for none",
        },
        "--seed": {"type": int, "default": 0, "help": "of all random numbers"},
        "--engine": {
            "default": "auto",
            "choices": ("auto", "native", "stacked", "loop"),
            "help": "what trains; auto tries those that can",
        },
        "--workers": {
            "type": kinds.count(0),
            "default": 0,
            "metavar": "N",
            "help": "models side by side; all cores unless given",
        },
        "--shortest-first": {**_FLAG, "help": "many keys done early, the end a little later"},
    },
    "checking": {
        "--prove": {
            "type": kinds.count(0),
            "default": 0,
            "metavar": "N",
            "help": "also train N keys by the plain loop, and compare",
        },
        "--baseline": {
            "default": "report",
            "choices": ("none", "report", "keep"),
            "help": "beside the naive forecast and one network of all keys; keep: the best of them predicts",
        },
    },
    "results": {
        "--journal": {"metavar": "FOLDER", "help": "go on there after a kill, to the same bits"},
        "--out": {
            "metavar": "FILE",
            "type": kinds.path,
            "help": "weights as safetensors, with a table of keys beside them",
        },
        "--json": {"metavar": "FILE", "type": kinds.path, "help": "every figure as JSON; - is stdout"},
        "--html": {
            "metavar": "FILE",
            "type": kinds.path,
            "help": "the report as one page, with forecasts of some keys",
        },
        "--quiet": {**_FLAG, "help": "no progress and no report"},
    },
}
