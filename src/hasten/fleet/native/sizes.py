"""What a forward does with the sizes of its tensors."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx

from hasten.fleet.native.chain import Layer
from hasten.fleet.native.layers import Shape

BATCH = -2  # stands for the number of rows where a forward asks for sizes


class Sizes:
    """Follows nodes that hold no rows.

    Attributes:
        values: of every node that gave rows, the layer that made them (None: they are the model's input), and the shape
            of a row.
        sizes: what nodes that ask for sizes gave: a number, or a whole shape with ``BATCH`` in front.
        noughts: shapes of tensors of noughts, which recurrent layers may be given to start from.
    """

    def __init__(self) -> None:
        self.values: dict[Any, tuple[Layer | None, Shape]] = {}
        self.sizes: dict[Any, Any] = {}
        self.noughts: dict[Any, Any] = {}

    def asks_for_sizes(self, node: fx.Node) -> bool:
        """Whether this node gives sizes, which are kept."""
        of, rest = (node.args[0] if node.args else None), node.args[1:]
        if not isinstance(of, fx.Node) or node.kwargs:
            return False
        if of in self.sizes and node.target is operator.getitem:
            found = self.sizes[of]
            if not isinstance(found, tuple) or not isinstance(rest[0], int):
                return False
            self.sizes[node] = found[rest[0]]
        elif of in self.values and node.op == "call_function" and node.target is getattr:
            if rest not in (("shape",), ("device",), ("dtype",)):
                return False
            self.sizes[node] = (BATCH, *self.values[of][1]) if rest == ("shape",) else rest[0]
        elif of in self.values and node.op == "call_method" and node.target == "size":
            found = (BATCH, *self.values[of][1])
            self.sizes[node] = found[rest[0]] if rest and isinstance(rest[0], int) else found
        else:
            return False
        return True

    def is_nought(self, node: fx.Node) -> bool:
        """Whether this node gives a tensor of noughts, whose shape is kept."""
        of = node.args[0] if node.args else None
        if node.op == "call_method" and of in self.noughts and node.target in ("to", "requires_grad_", "float"):
            self.noughts[node] = self.noughts[of]
            return True
        makes = node.op == "call_function" and node.target is torch.zeros
        if not (makes or (node.op == "call_method" and node.target == "new_zeros" and of in self.values)):
            return False
        given: Any = node.args if makes else node.args[1:]
        given = given[0] if len(given) == 1 and isinstance(given[0], (tuple, list)) else given
        self.noughts[node] = tuple(self.sizes.get(n) if isinstance(n, fx.Node) else n for n in given)
        return True
