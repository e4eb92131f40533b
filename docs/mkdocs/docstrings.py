"""Extensions of Griffe: docstrings in Keras' style, as its parser of Google's style
reads them, and what it does not find."""

import re

import griffe

EXAMPLE = re.compile(r"(?:^|(?<=\n\n))(>>> .*(?:\n.+)*)", re.MULTILINE)
BESIDES = re.compile(r"^Args: (.+)\n(?= )", re.MULTILINE)
OF_CALL = re.compile(r"^Returns:$", re.MULTILINE)
OF_CELL = re.compile(r"arguments_of\((\w+)\)")


class KerasStyle(griffe.Extension):
    """Rewrites docstrings before they are parsed."""

    def on_instance(self, *, obj, **kwargs):
        if obj.is_module:
            # The page of a module has words of its own.
            obj.docstring = None
        if not obj.docstring:
            return
        # In Markdown >>> begins a quotation.
        text = EXAMPLE.sub(r"```pycon\n\1\n```", obj.docstring.value)
        # What stands beside the title of a section would take the title's place.
        text = BESIDES.sub(r"Parameters: \1\n\nArgs:\n", text)
        if obj.is_class:
            # A layer returns something when it is called.
            text = OF_CALL.sub("Call returns:", text)
        obj.docstring.value = text


class Functions(griffe.Extension):
    """Finds functions that Python finds when it runs."""

    def on_package(self, *, pkg, loader, **kwargs):
        for module in pkg["models"].modules.values():
            for function in module.functions.values():
                _expand_options(function, pkg["models._options"])
        # Afterwards no path leads through the modules that are hidden here.
        loader.resolve_aliases()
        _give_arguments(pkg["layers"])
        _hide_modules(pkg)


def _expand_options(function, module):
    """Gives a function that takes `**options: Unpack[...]` a parameter for each, as
    `inspect.signature` has them."""
    for parameter in [
        each
        for each in function.parameters
        if str(each.annotation).startswith("Unpack[")
    ]:
        del function.parameters[parameter.name]
        found, of_all, kind = {}, {}, parameter.annotation.slice.name
        while kind not in ("Options", "TypedDict"):
            found = {**module[kind].members, **found}
            kind = module[kind].bases[0].name
        if kind == "Options":
            of_all = module[kind].members
        for name, attribute in {**found, **of_all}.items():
            annotation, default = attribute.annotation.slice.elements
            # Strings in annotations are names to Griffe.
            default = (
                f'"{default}"' if isinstance(default, griffe.ExprName) else default
            )
            by_name = griffe.ParameterKind.keyword_only
            function.parameters.add(
                griffe.Parameter(
                    name, annotation=annotation, kind=by_name, default=default
                )
            )


def _give_arguments(layers):
    """Gives the constructors of neuron layers the arguments of their cells, which the
    decorator names."""
    classes = (
        found
        for module in layers.modules.values()
        for found in module.classes.values()
        if not found.is_alias
    )
    for layer in classes:
        constructor = layer.members.get("__init__")
        for found in filter(
            None,
            (
                OF_CELL.fullmatch(str(each.value))
                for each in getattr(constructor, "decorators", ())
            ),
        ):
            itself, _, *of_layer = constructor.parameters
            of_cell = [
                each
                for each in layer.parent[found[1]].parameters
                if each.name not in ("self", "kwargs")
            ]
            constructor.parameters = griffe.Parameters(itself, *of_cell, *of_layer)


def _hide_modules(package):
    """Replaces modules by the functions of the same names, where these are imported
    from them."""
    for name, member in list(package.members.items()):
        if member.is_alias and not member.resolved:
            continue
        found = member.final_target if member.is_alias else member
        if not found.is_module:
            continue
        if not member.is_alias:
            _hide_modules(member)
        if name in package.imports and name in found.members:
            package.members[name] = griffe.Alias(
                name, found.members[name], parent=package
            )
