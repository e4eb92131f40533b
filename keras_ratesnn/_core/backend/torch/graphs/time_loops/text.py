"""The text of a program in C++: traced steps of neurons, as the bodies of loops over
time."""

import functools
import itertools
import math

import torch
from torch import fx

from keras_ratesnn._core.backend.torch.graphs.time_loops import templates
from keras_ratesnn._core.backend.torch.graphs.time_loops.operations import (
    literal,
    operation_text,
    type_text,
)
from keras_ratesnn._core.backend.torch.normalization import HALF

_aten = torch.ops.aten

_SAME = {_aten.detach.default, _aten.alias.default, _aten.clone.default}
_VIEWS = {_aten.view.default, _aten.unsqueeze.default, _aten.expand.default}
_FILLED = {_aten.zeros_like.default: 0, _aten.ones_like.default: 1}


def constant_results(module):
    """The numbers of which the results of a graph consist, or `None` if they depend on
    its arguments."""
    constants = _constants(module)
    results = module.graph.output_node().args[0]
    if not all(result in constants for result in results):
        return None
    return [_number(constants[result]) for result in results]


def _constants(module):
    """The values of the nodes that do not depend on the arguments of a graph but for
    their shapes."""
    constants: dict[fx.Node, torch.Tensor] = {}
    for node in module.graph.nodes:
        if node.target in _FILLED or node.target is _aten.full_like.default:
            value = _FILLED.get(node.target, node.args[-1])
            like = value_of(node)
            number = torch.full((), value, dtype=like.dtype)
            constants[node] = number.expand(like.shape)
        elif node.op == "get_attr":
            constants[node] = getattr(module, node.target)
        elif node.op == "call_function" and all(
            argument in constants for argument in node.all_input_nodes
        ):
            args, kwargs = fx.node.map_arg(
                (node.args, node.kwargs), constants.__getitem__
            )
            constants[node] = node.target(*args, **kwargs)
    return constants


def _number(constant):
    """The number of which a tensor consists; raises ValueError if there are several."""
    first = constant.flatten()[0]
    # NaN is not equal to itself.
    if constant.numel() > 1 and not torch.equal(constant, first.expand_as(constant)):
        raise ValueError("there are constants that are not the same for all neurons")
    return first.item()


def value_of(node):
    return node.meta["val"]


def arguments_of(module, groups):
    """The arguments of a graph module, a list of tensors for each length in
    `groups`."""
    values = map(value_of, module.graph.find_nodes(op="placeholder"))
    return [list(itertools.islice(values, count)) for count in groups]


def results_of(module):
    """The results of a graph module, a list of tensors."""
    return list(map(value_of, module.graph.output_node().args[0]))


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
        self._bodies: list[_Body] = []

    def __str__(self):
        return templates.PROGRAM.substitute(
            pointers="\n".join(self._pointers),
            before="\n".join(self._before),
            loops="\n".join(self._loops),
            end=self._end,
        )

    def read_weights(self, weights):
        """The last of the tensors that the program reads, a list: one for each feature,
        or one for all."""
        return [value for body in self._bodies for value in body.read_weights(weights)]

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
        index = len(self.axes)
        has_features = self.has_features(shape)
        if has_features and shape != self.shape:
            raise ValueError(f"a tensor of the shape {tuple(shape)}")
        self.axes.append((has_features, len(shape)))
        kind = "bool" if like.dtype == torch.bool else type_text(like.dtype)
        offset = f"b * strides[{2 * index}]{' + f' if has_features else ''}"
        self._pointers.append(
            f"const {kind}* in_{index} = static_cast<const {kind}*>(inputs[{index}]) + "
            f"{offset};"
        )
        terms = []
        if has_steps:
            terms.append(f"t * strides[{2 * index + 1}]")
        if has_features:
            terms.append("j")
        return f"in_{index}[{' + '.join(terms) or 0}]"

    def _declare_result(self, index, like, has_steps):
        if has_steps:
            offset = "b * steps * features + f"
        elif self.has_features(like.shape):
            offset = "b * features + f"
        else:
            offset = "b" if like.shape else "0"
        kind = type_text(like.dtype)
        self._pointers.append(
            f"{kind}* out_{index} = static_cast<{kind}*>(outputs[{index}]) + {offset};"
        )

    def _declare_array(self, name, like, first):
        """Numbers of a block of neurons, which are like this tensor, and begin with
        this text."""
        self._before.append(
            f"{type_text(like.dtype)} {name}[BLOCK];\nfor (int j = 0; j < n; ++j) "
            f"{name}[j] = {first};"
        )

    def _add_loops(self, bodies, is_reversed=False):
        """Adds a loop for each phase."""
        numbered = list(enumerate(bodies))
        if is_reversed:
            numbered.reverse()
        for number, body in numbered:
            first = f"ends[{number - 1}]" if number else "0"
            end = f"ends[{number}]"
            if is_reversed:
                steps = f"t = {end} - 1; t >= {first}; --t"
            else:
                steps = f"t = {first}; t < {end}; ++t"
            self._loops.append(templates.LOOP.substitute(body.lines, steps=steps))
        self._bodies += bodies


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
            if numbers:
                first = literal(numbers[index], type_text(like.dtype))
            else:
                first = self.read(like, like.shape, False)
            self._declare_array(f"state_{index}", like, first)
        reads = [self.read(like, like.shape, True) for like in (*inputs, *valid)]
        last = state if end is None else results_of(end)
        outputs = results_of(modules[0])[len(state) :]
        for index, like in enumerate((*last, *outputs)):
            self._declare_result(index, like, index >= len(last))

        def store(index, like, text):
            if index < len(state):
                return _next_state(like, f"state_{index}[j]", text)
            if like.shape != shape:
                raise ValueError(f"an output has the shape {tuple(like.shape)}")
            return f"out_{index - len(state) + len(last)}[t * features + j] = {text};"

        self._add_loops(
            [_Body(self, module, groups, reads, store) for module in modules]
        )
        if end is None:
            body = [
                self._store_at_end(index, like, f"state_{index}[j]")
                for index, like in enumerate(state)
            ]
            lines = {"before": "", "body": "\n".join(body)}
        else:
            self._bodies.append(_Body(self, end, groups[:2], [], self._store_at_end))
            lines = self._bodies[-1].lines
        self._end = templates.END.substitute(lines)

    def _store_at_end(self, index, like, text):
        if self.has_features(like.shape):
            return f"out_{index}[j] = {text};"
        # All neurons, or all of a sample, share it: the first one writes it.
        neuron = "f + j" if like.shape else "b + f + j"
        return f"if ({neuron} == 0) out_{index}[0] = {text};"


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
        has_state_gradients: Whether the last state has gradients.
    """

    def __init__(
        self, modules, derivatives, shape, groups, numbers, same, has_state_gradients
    ):
        super().__init__(shape)
        _, state, inputs, valid, state_gradients, output_gradients = arguments_of(
            derivatives[0], groups
        )
        if any(like.shape != shape for like in state) or numbers is None:
            raise ValueError(
                "a state that needs a gradient is not one number for each neuron"
            )
        reads = [self.read(like, like.shape, True) for like in (*inputs, *valid)]
        for index, (like, number) in enumerate(zip(state, numbers, strict=True)):
            self._declare_states_of_all_steps(index, like, number)
            first = "0"
            if has_state_gradients:
                first = self.read(state_gradients[index], shape, False)
            self._declare_array(f"of_state_{index}", like, first)
        upstream = [f"of_state_{index}[j]" for index in range(len(state))]
        upstream += [self.read(like, shape, True) for like in output_gradients]
        input_gradients = results_of(derivatives[0])[len(state) :]
        for index, (like, is_same) in enumerate(
            zip(input_gradients, same, strict=True)
        ):
            self._declare_result(index, like, not is_same)
            if is_same:
                self._before.append(f"for (int j = 0; j < n; ++j) out_{index}[j] = 0;")

        def store(index, like, text):
            if index >= len(state):
                return ""
            return _next_state(like, f"kept_{index}[(t + 1) * BLOCK + j]", text)

        def store_backwards(index, like, text):
            if index < len(state):
                return f"of_state_{index}[j] = {text};"
            index -= len(state)
            if same[index]:
                return f"out_{index}[j] += {text};"
            return f"out_{index}[t * features + j] = {text};"

        before_step = "kept_{}[t * BLOCK + j]"
        forwards = [
            _Body(self, module, groups[:4], reads, store, before_step)
            for module in modules
        ]
        self._add_loops(forwards)
        backwards = [
            _Body(
                self, module, groups, [*reads, *upstream], store_backwards, before_step
            )
            for module in derivatives
        ]
        self._add_loops(backwards, is_reversed=True)

    def _declare_states_of_all_steps(self, index, like, number):
        kind = type_text(like.dtype)
        name = f"kept_{index}"
        self._before.append(
            f"const std::unique_ptr<{kind}[]> {name}(new {kind}[(steps + 1) * BLOCK]);"
            f"\nfor (int j = 0; j < n; ++j) {name}[j] = {literal(number, kind)};"
        )


def _next_state(like, target, text):
    if like.dtype in HALF:
        raise ValueError("a state is rounded at each step")
    return f"{target} = {text};"


class _Body:
    """The body of the loop of a phase, or what follows the last one.

    Args:
        program: The `Text`.
        module: A graph module.
        groups: List of the lengths of its lists of arguments, as in `Text`.
        reads: List of the texts that read what follows the state.
        store: Function `(index, like, text)` that returns the line which stores a
            result.
        state: The text that reads a state, whose number is put in. Defaults to that
            after the step before.

    Attributes:
        lines: Dictionary of the lines `before` a loop, at the beginning of `each_step`,
            and for each neuron, its `body`.
    """

    def __init__(self, program, module, groups, reads, store, state="state_{}[j]"):
        self._program = program
        self._module = module
        self._shape = program.shape
        nodes = iter(module.graph.find_nodes(op="placeholder"))
        weights, states, *rest = (
            list(itertools.islice(nodes, count)) for count in groups
        )
        # Nodes that are one number, those of weights alone, and all others, with their
        # names.
        self._constants = _constants(module)
        self._fixed = set(weights)
        self._names: dict[fx.Node, str] = {}
        self._used: dict[fx.Node, str] = {}
        self._before: list[str] = []
        self._each_step: list[str] = []
        self._body: list[str] = []
        for index, node in enumerate(states):
            self._names[node] = self._declared(node, state.format(index), self._body)
        for node, text in zip(itertools.chain.from_iterable(rest), reads, strict=True):
            has_features = program.has_features(value_of(node).shape)
            lines = self._body if has_features else self._each_step
            self._names[node] = self._declared(node, text, lines)
        for node in module.graph.nodes:
            if node.op == "call_function" and node not in self._constants:
                self._write(node)
        for index, result in enumerate(module.graph.output_node().args[0]):
            like = value_of(result)
            if like.dtype == torch.bool:
                raise ValueError("a result is a boolean")
            text = self._operand(like.shape, result, type_text(like.dtype))
            self._body.append(store(index, like, text))
        self.lines = {
            "before": "\n".join(self._before),
            "each_step": "\n".join(self._each_step),
            "body": "\n".join(self._body),
        }
        self._weights_graph = self._graph_of_weights(weights)

    def read_weights(self, weights):
        """Those values of the weights that the phase reads, a list."""
        if not self._used:
            return []
        features = (1, *self._shape[1:])
        values = self._weights_graph(*weights)
        return [value.expand(features) if value.ndim else value for value in values]

    def _declared(self, node, text, lines):
        """The name of what is read from a tensor."""
        lines.append(f"const {type_text(value_of(node).dtype)} {node.name} = {text};")
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
            operand = functools.partial(self._operand, value_of(node).shape)
            text = operation_text(node, operand)
            self._names[node] = self._declared(node, text, self._body)

    def _is_plain_view(self, node):
        """Whether the numbers of a view are those of its argument for the same
        neuron."""
        before, after = value_of(node.args[0]).shape, value_of(node).shape
        is_expanded = (
            node.target is _aten.expand.default
            and after == self._shape
            and len(before) in (0, len(after))
        )
        are_rows = self._program.is_row(before) and self._program.is_row(after)
        return before == after or is_expanded or are_rows

    def _check_shape(self, node):
        shape, dtype = value_of(node).shape, value_of(node).dtype
        if shape not in ((), self._shape) and not self._program.is_row(shape):
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

    def _operand(self, shape, argument, kind):
        """The text of an argument of an operation with a result of a shape, converted
        to a type."""
        if not isinstance(argument, fx.Node):
            return literal(argument, kind)
        if argument in self._constants:
            return literal(_number(self._constants[argument]), kind)
        own_shape = value_of(argument).shape
        if argument in self._fixed:
            return f"({kind}){self._weight(argument, own_shape, shape)}"
        if own_shape and len(own_shape) != len(shape):
            raise ValueError("rows become features")
        return f"({kind}){self._names[argument]}"

    def _weight(self, node, own_shape, shape):
        """The name of a number of weights, for a result of a shape."""
        if own_shape and (
            shape != self._shape or (len(own_shape) == len(shape) and own_shape[0] != 1)
        ):
            raise ValueError("weights are not of neurons")
        if node not in self._used:
            read_shape = self._shape if own_shape else ()
            text = self._program.read(value_of(node), read_shape, False)
            lines = self._body if own_shape else self._before
            self._used[node] = self._declared(node, text, lines)
        return self._used[node]

    def _graph_of_weights(self, weights):
        """A function of the weights that returns a list of those values that the phase
        reads."""
        graph = fx.Graph()
        copies: dict[fx.Node, fx.Node] = {}
        for node in weights:
            copies[node] = graph.placeholder(node.name)
        for node in self._module.graph.nodes:
            is_fixed = node.op != "placeholder" and (
                node in self._fixed or node in self._constants
            )
            if is_fixed and all(
                argument in copies for argument in node.all_input_nodes
            ):
                copies[node] = graph.node_copy(node, copies.__getitem__)
        graph.output([copies[node] for node in self._used])
        graph.eliminate_dead_code()
        return fx.GraphModule(self._module, graph).forward
