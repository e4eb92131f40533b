"""Distinct names of the calls of a network."""


class Names:
    """Names made distinct: the second call of layer "lif" is "lif (2)"."""

    def __init__(self) -> None:
        self.all: list[str] = []

    def add(self, name: str) -> str:
        """Adds a name, made distinct, and returns it so."""
        count = sum(
            earlier == name or earlier.startswith(f"{name} (") for earlier in self.all
        )
        self.all.append(f"{name} ({count + 1})" if count else name)
        return self.all[-1]
