"""Extension of Griffe: docstrings in Keras' style, as Griffe's parser of Google's style reads them."""

import re

import griffe

EXAMPLE = re.compile(r"(?:^|(?<=\n\n))(>>> .*(?:\n.+)*)", re.MULTILINE)
BESIDES = re.compile(r"^Args: (.+)\n(?= )", re.MULTILINE)
OF_CALL = re.compile(r"^Returns:$", re.MULTILINE)


class KerasStyle(griffe.Extension):
    """Rewrites docstrings before they are parsed."""

    def on_instance(self, *, obj, **kwargs):
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
