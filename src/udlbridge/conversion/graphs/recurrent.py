"""Translations of recurrent networks: unrolled, step after step, layer after layer, in both directions.

Source: the equations in the documentation of torch.nn.RNN, LSTM and GRU.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from udlbridge.conversion.graphs.builder import Call, Unfit, Value
from udlbridge.conversion.graphs.elementwise import Translation
from udlbridge.conversion.graphs.movement import piece
from udlbridge.networks.graphs.values import Extent

State = tuple[Value, ...]
Cell = Callable[[Call, Value, State, "Weights"], tuple[Value, State]]
"""One step: the input's part of the gates (n, gates), and the state, to the output and the next state."""


class Weights:
    """The parameters of one layer in one direction."""

    def __init__(self, arrays: list[Any], biased: bool) -> None:
        self.inputs, self.hidden, *rest = arrays
        self.input_bias: Any = rest[0] if biased else None
        self.hidden_bias: Any = rest[1] if biased else None
        more = rest[2 if biased else 0 :]
        self.projection = more[0] if more else None


def linear(c: Call, x: Any, weight: Any, bias: Any) -> Value:
    """x W' + b."""
    return c.add("linear", x, weight, bias, shape=(*c.shape(x)[:-1], c.size(weight, 0)))


def combined(c: Call, op: str, a: Any, b: Any) -> Value:
    """An elementwise operation of two values of one shape."""
    return c.add(op, a, b, shape=c.shape(a))


def applied(c: Call, op: str, x: Any) -> Value:
    """An activation."""
    return c.add(op, x, shape=c.shape(x))


def gates(c: Call, x: Value, count: int) -> list[Value]:
    """The last axis in equal parts."""
    width = c.size(x, -1) // count
    return [piece(c, x, c.ndim(x) - 1, index * width, width) for index in range(count)]


def lstm_cell(c: Call, given: Value, state: State, w: Weights) -> tuple[Value, State]:
    """c' = f c + i g, h' = o tanh(c'), projected where there is a projection."""
    hidden, cell = state
    parts = gates(c, combined(c, "add", given, linear(c, hidden, w.hidden, w.hidden_bias)), 4)
    i, f, o = (applied(c, "sigmoid", parts[index]) for index in (0, 1, 3))
    g = applied(c, "tanh", parts[2])
    cell = combined(c, "add", combined(c, "multiply", f, cell), combined(c, "multiply", i, g))
    hidden = combined(c, "multiply", o, applied(c, "tanh", cell))
    if w.projection is not None:
        hidden = linear(c, hidden, w.projection, None)
    return hidden, (hidden, cell)


def gru_cell(c: Call, given: Value, state: State, w: Weights) -> tuple[Value, State]:
    """h' = (1 - z) n + z h, as n + z (h - n), with n = tanh(input's part + r hidden's part)."""
    (hidden,) = state
    own = gates(c, linear(c, hidden, w.hidden, w.hidden_bias), 3)
    from_input = gates(c, given, 3)
    r, z = (applied(c, "sigmoid", combined(c, "add", from_input[index], own[index])) for index in (0, 1))
    new = applied(c, "tanh", combined(c, "add", from_input[2], combined(c, "multiply", r, own[2])))
    hidden = combined(c, "add", new, combined(c, "multiply", z, combined(c, "subtract", hidden, new)))
    return hidden, (hidden,)


def plain_cell(op: str) -> Cell:
    """h' = tanh or relu of the sum of both parts."""

    def cell(c: Call, given: Value, state: State, w: Weights) -> tuple[Value, State]:
        hidden = applied(c, op, combined(c, "add", given, linear(c, state[0], w.hidden, w.hidden_bias)))
        return hidden, (hidden,)

    return cell


def step(c: Call, x: Any, axis: int, index: int) -> Value:
    """What stands at one place of an axis, without the axis."""
    shape = c.shape(x)
    return c.reshape(piece(c, x, axis, index, 1), (*shape[:axis], *shape[axis + 1 :]))


def joined(c: Call, parts: list[Value], axis: int) -> Value:
    """Values along a new axis."""
    shape = c.shape(parts[0])
    own = (*shape[:axis], 1, *shape[axis:])
    whole: list[Extent] = list(own)
    whole[axis] = len(parts)
    return c.add("concatenate", *(c.reshape(part, own) for part in parts), shape=whole, axis=axis)


def unrolled(cell: Cell) -> Translation:
    """All outputs, and the last state of each kind."""

    def translate(c: Call) -> list[Value]:
        x, given = c["input"], c["hx"]
        states = list(given) if isinstance(given, list | tuple) else [given]
        if c["train"] and c["dropout"] > 0:
            raise Unfit("it draws random numbers")
        if c.ndim(x) != 3:
            raise Unfit("a sequence without an axis of samples")
        directions = 2 if c["bidirectional"] else 1
        time = 1 if c["batch_first"] else 0
        count = len(c["params"]) // (c["num_layers"] * directions)
        weights = [
            Weights(list(c["params"][k : k + count]), c["has_biases"]) for k in range(0, len(c["params"]), count)
        ]
        ends: list[State] = []
        for layer in range(c["num_layers"]):
            outputs = []
            for direction in range(directions):
                index = layer * directions + direction
                w = weights[index]
                state = tuple(step(c, one, 0, index) for one in states)
                parts = linear(c, x, w.inputs, w.input_bias)
                steps = range(c.size(x, time))
                found = {}
                for t in reversed(steps) if direction else steps:
                    found[t], state = cell(c, step(c, parts, time, t), state, w)
                outputs.append(joined(c, [found[t] for t in steps], time))
                ends.append(state)
            x = outputs[0]
            if directions == 2:
                shape = (*c.shape(x)[:-1], 2 * c.size(x, -1))
                x = c.add("concatenate", *outputs, shape=shape, axis=2)
        return [c.value(x), *(joined(c, [end[kind] for end in ends], 0) for kind in range(len(states)))]

    return translate


def one_step(cell: Cell) -> Translation:
    """A cell by itself; of an LSTM with both states."""

    def translate(c: Call) -> Any:
        arrays = [c[name] for name in ("w_ih", "w_hh", "b_ih", "b_hh")]
        biased = arrays[2] is not None
        w = Weights(arrays if biased else arrays[:2], biased)
        given = c["hx"]
        state = tuple(map(c.value, given)) if isinstance(given, list | tuple) else (c.value(given),)
        hidden, ends = cell(c, linear(c, c["input"], w.inputs, w.input_bias), state, w)
        return list(ends) if len(ends) > 1 else hidden

    return translate


TRANSLATIONS: dict[str, Translation] = {
    "lstm": unrolled(lstm_cell),
    "gru": unrolled(gru_cell),
    "rnn_tanh": unrolled(plain_cell("tanh")),
    "rnn_relu": unrolled(plain_cell("relu")),
    "lstm_cell": one_step(lstm_cell),
    "gru_cell": one_step(gru_cell),
    "rnn_tanh_cell": one_step(plain_cell("tanh")),
    "rnn_relu_cell": one_step(plain_cell("relu")),
}
"""By the name of torch's operation."""
