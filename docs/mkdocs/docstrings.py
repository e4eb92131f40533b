"""Extensions of Griffe: docstrings in Keras' style, as its parser of Google's style
reads them, and what it does not find."""

import importlib
import inspect
import pathlib
import re
import runpy

import griffe

EXAMPLE = re.compile(r"(?:^|(?<=\n\n))(>>> .*(?:\n.+)*)", re.MULTILINE)
OF_CALL = re.compile(r"^Returns:$", re.MULTILINE)
MODULES = re.compile(r"\b[a-z]\w*\.")
"""What stands before the names of types."""
TABLES = runpy.run_path(str(pathlib.Path(__file__).parent / "api_tables.py"))


class KerasStyle(griffe.Extension):
    """Rewrites docstrings before they are parsed."""

    def on_instance(self, *, obj, **kwargs):
        if obj.is_module:
            # The page of a module has words of its own.
            obj.docstring = None
        if obj.docstring:
            obj.docstring.value = in_griffes_style(obj.docstring.value, obj.is_class)


def in_griffes_style(text, is_class):
    # In Markdown >>> begins a quotation.
    text = EXAMPLE.sub(r"```pycon\n\1\n```", text)
    # A layer returns something when it is called.
    return OF_CALL.sub("Call returns:", text) if is_class else text


class AtRuntime(griffe.Extension):
    """Finds functions, docstrings and arguments that are there when Python runs."""

    def on_package(self, *, pkg, loader, **kwargs):
        # Afterwards no path leads through the modules that are hidden here.
        loader.resolve_aliases()
        _hide_modules(pkg)
        for module in TABLES["pages"]():
            for name, value in TABLES["public"](importlib.import_module(module)):
                path = f"{module}.{name}".removeprefix(f"{pkg.name}.")
                _complete(pkg[path], value)


def _complete(entry, value):
    """Gives a function or class the docstring and the arguments that `help` shows."""
    entry = entry.final_target if entry.is_alias else entry
    entry.docstring.value = in_griffes_style(inspect.getdoc(value), entry.is_class)
    called = entry.members.get("__init__") if entry.is_class else entry
    if called is None:
        return
    itself = [each for each in called.parameters if each.name == "self"]
    written = [each.name for each in called.parameters][len(itself) :]
    signature = inspect.signature(value)
    if written != list(signature.parameters):
        found = map(_parameter, signature.parameters.values())
        called.parameters = griffe.Parameters(*itself, *found)


def _parameter(parameter):
    has_default = parameter.default is not inspect.Parameter.empty
    return griffe.Parameter(
        parameter.name,
        annotation=MODULES.sub("", inspect.formatannotation(parameter.annotation)),
        kind=griffe.ParameterKind[parameter.kind.name.lower()],
        default=repr(parameter.default) if has_default else None,
    )


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
