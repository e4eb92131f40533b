"""The text of a program in C++: traced steps of neurons, as the bodies of loops over
time."""

import functools
import itertools
import math
import string
from typing import Any

import torch
from torch import fx

from keras_ratesnn._core.backend.torch.normalization import HALF

_aten = torch.ops.aten

_TYPES = {torch.float32: "float", torch.float64: "double", torch.bool: "int32_t"}
"""The types in C++. Booleans are as wide as the numbers beside them: loops with others
are not vectorised."""


def numbers_of(module):
    """The numbers of which the results of a graph consist, or `None` if they depend on
    its arguments."""
    constants = _constants(module)
    results = module.graph.output_node().args[0]
    return (
        list(map(_number, map(constants.get, results)))
        if all(result in constants for result in results)
        else None
    )


def _constants(module):
    """The values of the nodes that do not depend on the arguments of a graph but for
    their shapes."""
    found: dict[fx.Node, torch.Tensor] = {}
    for node in module.graph.nodes:
        if node.target in _FILLED or node.target is _aten.full_like.default:
            value, like = _FILLED.get(node.target, node.args[-1]), value_of(node)
            found[node] = torch.full((), value, dtype=like.dtype).expand(like.shape)
        elif node.op == "get_attr":
            found[node] = getattr(module, node.target)
        elif node.op == "call_function" and all(
            argument in found for argument in node.all_input_nodes
        ):
            args, kwargs = fx.node.map_arg((node.args, node.kwargs), found.__getitem__)
            found[node] = node.target(*args, **kwargs)
    return found


def _number(constant):
    """The number of which a tensor consists; raises ValueError if there are several."""
    first = constant.flatten()[0]
    if not torch.equal(constant, first.expand(constant.shape)):
        raise ValueError("there are constants that are not the same for all neurons")
    return first.item()


def value_of(node):
    return node.meta["val"]


def arguments_of(module, groups):
    """What a graph module takes, a list of tensors for each length in `groups`."""
    nodes = iter(module.graph.find_nodes(op="placeholder"))
    return [
        [value_of(node) for node in itertools.islice(nodes, count)] for count in groups
    ]


def results_of(module):
    """What a graph module returns, a list of tensors."""
    return [value_of(node) for node in module.graph.output_node().args[0]]


def stored(dtype):
    """The dtype of the tensors that a program reads and writes."""
    return torch.float32 if dtype in HALF else dtype


def _type(dtype):
    """The type in C++."""
    if stored(dtype) not in _TYPES:
        raise ValueError(f"there are tensors of {dtype}")
    return _TYPES[stored(dtype)]


def _sum(x, y, alpha=None):
    return f"{x} + {y}" if alpha is None else f"multiply_add({y}, {alpha}, {x})"


def _difference(x, y, alpha=None):
    return f"{x} - {y}" if alpha is None else f"multiply_add({y}, -{alpha}, {x})"


def _clamped(x, low=None, high=None):
    # NaN stays NaN.
    x = x if low is None else f"({x} < {low} ? {low} : {x})"
    return x if high is None else f"({x} > {high} ? {high} : {x})"


_ARITHMETIC: dict[Any, Any] = {
    **dict.fromkeys((_aten.add.Tensor, _aten.add.Scalar), _sum),
    **dict.fromkeys((_aten.sub.Tensor, _aten.sub.Scalar), _difference),
    _aten.rsub.Scalar: lambda x, y, alpha=None: _difference(y, x, alpha),
    **dict.fromkeys((_aten.mul.Tensor, _aten.mul.Scalar), "{} * {}".format),
    **dict.fromkeys((_aten.div.Tensor, _aten.div.Scalar), "{} / {}".format),
    _aten.neg.default: "-{}".format,
    _aten.abs.default: "std::abs({})".format,
    _aten.reciprocal.default: "1 / {}".format,
    _aten.round.default: "std::nearbyint({})".format,
    _aten.exp.default: "exponential({})".format,
    _aten.sigmoid.default: "1 / (1 + exponential(-{}))".format,
    _aten.sigmoid_backward.default: "{0} * (1 - {1}) * {1}".format,
    _aten.tanh.default: "std::tanh({})".format,
    _aten.tanh_backward.default: "{0} * (1 - {1} * {1})".format,
    _aten.sqrt.default: "std::sqrt({})".format,
    _aten.relu.default: lambda x: _clamped(x, 0),
    _aten.clamp.default: _clamped,
    _aten.clamp.Tensor: _clamped,
    _aten.addcmul.default: lambda x, y, z, value=None: (
        f"{x} + {y} * {z}" if value is None else f"{x} + {value} * {y} * {z}"
    ),
    _aten._to_copy.default: "{}".format,
}
"""The texts of operations on numbers of the type of their result."""

_COMPARISONS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<", "eq": "==", "ne": "!="}
_OF_BOOLEANS = {
    "logical_and": "&",
    "bitwise_and": "&",
    "logical_or": "|",
    "bitwise_or": "|",
}
_SAME = {_aten.detach.default, _aten.alias.default, _aten.clone.default}
_VIEWS = {_aten.view.default, _aten.unsqueeze.default, _aten.expand.default}
_FILLED = {_aten.zeros_like.default: 0, _aten.ones_like.default: 1}


class Text:
    """A program in C++: loops over the steps of some phases, one after the other.

    Args:
        shape: Tuple, that of the inputs of one step.

    Attributes:
        axes: For each tensor that the program reads, in order, whether it has features,
            and its number of axes without time.
    """

    def __init__(self, shape):
        self.shape = shape
        self.axes: list[tuple[bool, int]] = []
        self._pointers: list[str] = []
        self._before: list[str] = []
        self._loops: list[str] = []
        self._end = ""
        self._parts: list[_Part] = []

    def __str__(self):
        parts = {
            "pointers": self._pointers,
            "before": self._before,
            "loops": self._loops,
        }
        return _PROGRAM.substitute(
            {name: "\n".join(lines) for name, lines in parts.items()}, end=self._end
        )

    def of_weights(self, *weights):
        """The last of the tensors that the program reads, a list: one for each feature,
        or one for all."""
        return [value for part in self._parts for value in part.of_weights(*weights)]

    def is_row(self, shape):
        """Whether there is one number for each sample."""
        return (
            len(shape) > 0 and shape[0] == self.shape[0] and math.prod(shape[1:]) == 1
        )

    def has_features(self, shape):
        """Whether there is one number for each neuron."""
        return len(shape) > 0 and (shape == self.shape or not self.is_row(shape))

    def read(self, like, shape, has_steps):
        """The text that reads a tensor like this one at a step."""
        index, has_features = len(self.axes), self.has_features(shape)
        if has_features and shape != self.shape:
            raise ValueError(f"a tensor of the shape {tuple(shape)}")
        self.axes.append((has_features, len(shape)))
        kind = "bool" if like.dtype == torch.bool else _type(like.dtype)
        offset = f"b * strides[{2 * index}]{' + f' if has_features else ''}"
        self._pointers.append(
            f"const {kind}* in_{index} = static_cast<const {kind}*>(inputs[{index}]) + "
            f"{offset};"
        )
        place = [f"t * strides[{2 * index + 1}]"] * has_steps + ["j"] * has_features
        return f"in_{index}[{' + '.join(place) or 0}]"

    def _declare_result(self, index, like, has_steps):
        place = (
            "b * features + f"
            if self.has_features(like.shape)
            else "b"
            if like.shape
            else "0"
        )
        kind, place = (
            _type(like.dtype),
            "b * steps * features + f" if has_steps else place,
        )
        self._pointers.append(
            f"{kind}* out_{index} = static_cast<{kind}*>(outputs[{index}]) + {place};"
        )

    def _declare_array(self, name, like, first):
        """Numbers of a block of neurons, which are like this tensor, and begin with
        this text."""
        self._before.append(
            f"{_type(like.dtype)} {name}[BLOCK];\nfor (int j = 0; j < n; ++j) "
            f"{name}[j] = {first};"
        )

    def _add_loops(self, parts, is_reversed=False):
        """A loop for each phase."""
        for number, part in [*enumerate(parts)][:: -1 if is_reversed else 1]:
            first, end = f"ends[{number - 1}]" if number else "0", f"ends[{number}]"
            steps = (
                f"t = {end} - 1; t >= {first}; --t"
                if is_reversed
                else f"t = {first}; t < {end}; ++t"
            )
            self._loops.append(_LOOP.substitute(part.lines, steps=steps))
        self._parts += parts


class TextOfSteps(Text):
    """The program of all steps.

    Args:
        modules: List of the graph module of a step of each phase: of weights, state,
            inputs and valid rows, to the next state and outputs.
        end: Graph module of weights and the last state to what is returned instead of
            it, or `None`.
        shape: As in `Text`.
        groups: List of the lengths of the lists of weights, state, inputs and valid
            rows.
        numbers: List of the numbers that the state is at the beginning, or `None` if it
            reads it.
    """

    def __init__(self, modules, end, shape, groups, numbers):
        super().__init__(shape)
        _, state, inputs, valid = arguments_of(modules[0], groups)
        for index, like in enumerate(state):
            first = (
                _literal(numbers[index], _type(like.dtype))
                if numbers
                else self.read(like, like.shape, False)
            )
            self._declare_array(f"state_{index}", like, first)
        at_steps = [self.read(like, like.shape, True) for like in (*inputs, *valid)]
        last = state if end is None else results_of(end)
        for index, like in enumerate((*last, *results_of(modules[0])[len(state) :])):
            self._declare_result(index, like, index >= len(last))

        def stored(index, like, text):
            if index < len(state):
                return _next_state(like, f"state_{index}[j]", text)
            if like.shape != shape:
                raise ValueError(f"an output has the shape {tuple(like.shape)}")
            return f"out_{index - len(state) + len(last)}[t * features + j] = {text};"

        def stored_at_end(index, like, text):
            if self.has_features(like.shape):
                return f"out_{index}[j] = {text};"
            return (
                f"if ({'f + j' if like.shape else 'b + f + j'} == 0) out_{index}[0] "
                f"= {text};"
            )

        self._add_loops(
            [_Part(self, module, groups, at_steps, stored) for module in modules]
        )
        if end is None:
            body = [
                stored_at_end(index, like, f"state_{index}[j]")
                for index, like in enumerate(state)
            ]
            lines = {"before": "", "body": "\n".join(body)}
        else:
            self._parts.append(_Part(self, end, groups[:2], [], stored_at_end))
            lines = self._parts[-1].lines
        self._end = _END.substitute(lines)


class TextOfDerivative(Text):
    """The program of the gradients of all steps: the states again, which are kept, and
    then the steps backwards.

    It reads inputs, valid rows, the gradients of the last state, if it has any, and
    those of the outputs.

    Args:
        modules: As in `TextOfSteps`.
        derivatives: List of the graph module of the derivative of a step of each phase:
            of weights, state, inputs, valid rows, and the gradients of the next state
            and of outputs, to those of the state and of the inputs that want one.
        shape: As in `Text`.
        groups: List of the lengths of the lists of weights, state, inputs, valid rows,
            and these gradients.
        numbers: As in `TextOfSteps`.
        same: For each input that wants a gradient, whether it is the same at every
            step.
        has_of_state: Whether the last state has gradients.
    """

    def __init__(
        self, modules, derivatives, shape, groups, numbers, same, has_of_state
    ):
        super().__init__(shape)
        _, state, inputs, valid, of_state, of_outputs = arguments_of(
            derivatives[0], groups
        )
        if any(like.shape != shape for like in state) or numbers is None:
            raise ValueError(
                "a state that needs a gradient is not one number for each neuron"
            )
        at_steps = [self.read(like, like.shape, True) for like in (*inputs, *valid)]
        for index, (like, number) in enumerate(zip(state, numbers, strict=True)):
            kind, kept = _type(like.dtype), f"kept_{index}"
            self._before.append(
                f"const std::unique_ptr<{kind}[]> {kept}(new {kind}[(steps + 1) * "
                f"BLOCK]);\nfor (int j = 0; j < n; ++j) {kept}[j] = "
                f"{_literal(number, kind)};"
            )
            self._declare_array(
                f"of_state_{index}",
                like,
                self.read(of_state[index], shape, False) if has_of_state else "0",
            )
        upstream = [f"of_state_{index}[j]" for index in range(len(state))]
        upstream += [self.read(like, shape, True) for like in of_outputs]
        for index, (like, is_same) in enumerate(
            zip(results_of(derivatives[0])[len(state) :], same, strict=True)
        ):
            self._declare_result(index, like, not is_same)
            if is_same:
                self._before.append(f"for (int j = 0; j < n; ++j) out_{index}[j] = 0;")

        def stored(index, like, text):
            return (
                _next_state(like, f"kept_{index}[(t + 1) * BLOCK + j]", text)
                if index < len(state)
                else ""
            )

        def stored_backwards(index, like, text):
            if index < len(state):
                return f"of_state_{index}[j] = {text};"
            index -= len(state)
            return (
                f"out_{index}[j] += {text};"
                if same[index]
                else f"out_{index}[t * features + j] = {text};"
            )

        kept = "kept_{}[t * BLOCK + j]"
        self._add_loops(
            [
                _Part(self, module, groups[:4], at_steps, stored, kept)
                for module in modules
            ]
        )
        reads = [*at_steps, *upstream]
        backwards = [
            _Part(self, module, groups, reads, stored_backwards, kept)
            for module in derivatives
        ]
        self._add_loops(backwards, is_reversed=True)


def _next_state(like, place, text):
    if like.dtype in HALF:
        raise ValueError("a state is rounded at each step")
    return f"{place} = {text};"


class _Part:
    """The loop of a phase, or what follows the last one.

    Args:
        program: The `Text`.
        module: A graph module.
        groups: List of the lengths of its lists of arguments, as in `Text`.
        at_steps: List of the texts that read what follows the state.
        stored: Function `(index, like, text)` that returns the line which stores a
            result.
        state: The text that reads a state, whose number is put in. Defaults to that
            after the step before.

    Attributes:
        lines: Dictionary of the lines `before` a loop, at the beginning of `each_step`,
            and for each neuron, its `body`.
    """

    def __init__(self, program, module, groups, at_steps, stored, state="state_{}[j]"):
        self._program, self._module, self._shape = program, module, program.shape
        nodes = iter(module.graph.find_nodes(op="placeholder"))
        weights, states, *others = (
            list(itertools.islice(nodes, count)) for count in groups
        )
        # Nodes that are one number, those of weights alone, and all others, with their
        # names.
        self._constants = _constants(module)
        self._fixed, self._names = set(weights), {}
        self._used: dict[fx.Node, str] = {}
        self._before: list[str] = []
        self._each_step: list[str] = []
        self._body: list[str] = []
        for index, node in enumerate(states):
            self._names[node] = self._declared(node, state.format(index), self._body)
        for node, text in zip(
            itertools.chain.from_iterable(others), at_steps, strict=True
        ):
            lines = (
                self._body
                if program.has_features(value_of(node).shape)
                else self._each_step
            )
            self._names[node] = self._declared(node, text, lines)
        for node in module.graph.nodes:
            if node.op == "call_function" and node not in self._constants:
                self._write(node)
        for index, result in enumerate(module.graph.output_node().args[0]):
            like = value_of(result)
            if like.dtype == torch.bool:
                raise ValueError("a result is a boolean")
            self._body.append(
                stored(
                    index, like, self._operand(result, _type(like.dtype), like.shape)
                )
            )
        parts = {
            "before": self._before,
            "each_step": self._each_step,
            "body": self._body,
        }
        self.lines = {name: "\n".join(lines) for name, lines in parts.items()}
        self.of_weights = self._graph_of_weights(weights)

    def _is_row(self, shape):
        return self._program.is_row(shape)

    def _declared(self, node, text, lines):
        """The name of what is read from a tensor."""
        lines.append(f"const {_type(value_of(node).dtype)} {node.name} = {text};")
        return node.name

    def _write(self, node):
        if all(
            argument in self._constants or argument in self._fixed
            for argument in node.all_input_nodes
        ):
            self._fixed.add(node)
        elif node.target in _SAME or (
            node.target in _VIEWS and self._is_plain_view(node)
        ):
            self._names[node] = self._names[node.args[0]]
        else:
            self._check_shape(node)
            self._names[node] = node.name
            self._body.append(
                f"const {_type(value_of(node).dtype)} {node.name} = "
                f"{self._operation(node)};"
            )

    def _is_plain_view(self, node):
        """Whether the numbers of a view are those of its argument for the same
        neuron."""
        before, after = value_of(node.args[0]).shape, value_of(node).shape
        expands = (
            node.target is _aten.expand.default
            and after == self._shape
            and len(before) in (0, len(after))
        )
        return (
            before == after or expands or (self._is_row(before) and self._is_row(after))
        )

    def _check_shape(self, node):
        shape, dtype = value_of(node).shape, value_of(node).dtype
        if shape not in ((), self._shape) and not self._is_row(shape):
            raise ValueError(f"{node.target} with a result of the shape {tuple(shape)}")
        # It is rounded after the loop: nothing may read what was rounded.
        is_chosen = node.target in (_aten._to_copy.default, _aten.where.self)
        if dtype in HALF and not (
            is_chosen
            and all(
                user.op == "output" or user.target is _aten.where.self
                for user in node.users
            )
        ):
            raise ValueError(f"{node.target} computes in {dtype}")

    def _operation(self, node):
        target, name = node.target, str(node.target).split(".")[1]
        shape, kind = value_of(node).shape, _type(value_of(node).dtype)
        if name in _COMPARISONS:
            nodes = node.all_input_nodes
            dtype = functools.reduce(
                torch.promote_types, (value_of(argument).dtype for argument in nodes)
            )
            if dtype in HALF:
                raise ValueError(
                    f"{target} compares in {dtype}, to which numbers are rounded"
                )
            kind = _type(dtype)
            return f" {_COMPARISONS[name]} ".join(
                self._operand(argument, kind, shape) for argument in node.args
            )
        if name in _OF_BOOLEANS:
            return f" {_OF_BOOLEANS[name]} ".join(
                self._operand(argument, "int32_t", shape) for argument in node.args
            )
        if name in ("logical_not", "bitwise_not"):
            return f"1 - {self._operand(node.args[0], kind, shape)}"
        if target is _aten.where.self:
            chosen, *others = node.args
            one, other = (self._operand(argument, kind, shape) for argument in others)
            return f"choose({self._operand(chosen, 'int32_t', shape)}, {one}, {other})"
        if target is _aten.pow.Tensor_Scalar and node.args[1] in (1, 2, 3):
            return " * ".join(
                [self._operand(node.args[0], kind, shape)] * int(node.args[1])
            )
        if target is _aten.round.decimals and not node.kwargs.get("decimals"):
            target = _aten.round.default
        if target not in _ARITHMETIC or kind == "int32_t":
            raise ValueError(f"it has the operation {target}")
        arguments = [
            None if argument is None else self._operand(argument, kind, shape)
            for argument in node.args
        ]
        factors = {
            key: self._operand(node.kwargs[key], kind, shape)
            for key in ("alpha", "value")
            if key in node.kwargs
        }
        return _ARITHMETIC[target](*arguments, **factors)

    def _operand(self, argument, kind, shape):
        """The text of an argument of an operation with a result of a shape, converted
        to a type."""
        if isinstance(argument, fx.Node):
            own = value_of(argument).shape
            if argument in self._constants:
                return _literal(_number(self._constants[argument]), kind)
            if argument in self._fixed:
                if own and (
                    shape != self._shape or (len(own) == len(shape) and own[0] != 1)
                ):
                    raise ValueError("weights are not of neurons")
                if argument not in self._used:
                    text = self._program.read(
                        value_of(argument), self._shape if own else (), False
                    )
                    self._used[argument] = self._declared(
                        argument, text, self._body if own else self._before
                    )
                return f"({kind}){self._used[argument]}"
            if own and len(own) != len(shape):
                raise ValueError("rows become features")
            return f"({kind}){self._names[argument]}"
        return _literal(argument, kind)

    def _graph_of_weights(self, weights):
        """A function of the weights that returns a list of those values that the phase
        reads."""
        graph, places = fx.Graph(), {}
        for node in weights:
            places[node] = graph.placeholder(node.name)
        for node in self._module.graph.nodes:
            is_fixed = node.op != "placeholder" and (
                node in self._fixed or node in self._constants
            )
            if is_fixed and all(
                argument in places for argument in node.all_input_nodes
            ):
                places[node] = graph.node_copy(node, places.__getitem__)
        graph.output([places[node] for node in self._used])
        graph.eliminate_dead_code()
        run = fx.GraphModule(self._module, graph).forward
        features = (1, *self._shape[1:])
        return lambda *weights: (
            [x.expand(features) if x.ndim else x for x in run(*weights)]
            if self._used
            else []
        )


def _literal(number, kind):
    if math.isfinite(number):
        return f"static_cast<{kind}>({float(number).hex()})"
    return "NAN" if math.isnan(number) else "INFINITY" if number > 0 else "-INFINITY"


_PROGRAM = string.Template("""#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>

// So many neurons take all steps before the next ones.
constexpr int BLOCK = 128;

template <typename T>
inline T multiply_add(T x, T y, T z) {
#if defined(__FMA__) || defined(__aarch64__)
  return std::fma(x, y, z);
#else
  return x * y + z;
#endif
}

// Without a branch, which a compiler would not vectorise.
template <typename Bits, typename T>
inline T chosen(Bits is_first, T x, T y) {
  Bits one, other;
  std::memcpy(&one, &x, sizeof one);
  std::memcpy(&other, &y, sizeof other);
  one = (one & -is_first) | (other & (is_first - 1));
  std::memcpy(&x, &one, sizeof one);
  return x;
}

inline float choose(int32_t is_first, float x, float y) {
    return chosen<int32_t>(is_first, x, y);
}
inline double choose(int32_t is_first, double x, double y) {
    return chosen<int64_t>(is_first, x, y);
}

inline double exponential(double x) { return std::exp(x); }

inline float power_of_two(int32_t exponent) {
  const int32_t bits = (exponent + 127) << 23;
  float power;
  std::memcpy(&power, &bits, sizeof power);
  return power;
}

// 2^n e^r with the polynomial of Cephes, which a compiler can vectorise.
inline float exponential(float x) {
  x = x < -104.0f ? -104.0f : x > 89.0f ? 89.0f : x;
  const float n = std::nearbyint(x * 1.44269504088896341f);
  const float r = multiply_add(n, 2.12194440e-4f, multiply_add(n, -0.693359375f, x));
  float p = 1.9875691500e-4f;
  p = multiply_add(p, r, 1.3981999507e-3f);
  p = multiply_add(p, r, 8.3334519073e-3f);
  p = multiply_add(p, r, 4.1665795894e-2f);
  p = multiply_add(p, r, 1.6666665459e-1f);
  p = multiply_add(p, r, 5.0000001201e-1f);
  p = multiply_add(p, r * r, r) + 1.0f;
  const int32_t exponent = static_cast<int32_t>(n), half = exponent >> 1;
  return p * power_of_two(half) * power_of_two(exponent - half);
}

extern "C" void run(int64_t batch, int64_t features, int64_t steps,
                    const int64_t* ends, int64_t threads, const void* const* inputs,
                    const int64_t* strides, void* const* outputs) {
  const int64_t blocks = (features + BLOCK - 1) / BLOCK;
#pragma omp parallel for num_threads(threads) if (threads > 1)
  for (int64_t index = 0; index < batch * blocks; ++index) {
    const int64_t b = index / blocks, f = index % blocks * BLOCK;
    const int n = features - f < BLOCK ? static_cast<int>(features - f) : BLOCK;
$pointers
$before
$loops
$end
  }
}
""")

_LOOP = string.Template("""    {
$before
      for (int64_t $steps) {
$each_step
#pragma omp simd
        for (int j = 0; j < n; ++j) {
$body
        }
      }
    }""")

_END = string.Template("""    {
$before
#pragma omp simd
      for (int j = 0; j < n; ++j) {
$body
      }
    }""")
