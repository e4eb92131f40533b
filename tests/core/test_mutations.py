"""The mutations made by hand are of the library as it is."""

import mutations
import pytest

MUTATIONS = mutations.GRADIENTS + mutations.LAYERS + mutations.ENGINE


@pytest.mark.parametrize(("file", "old", "new", "tests"), MUTATIONS)
def test_a_mutation_changes_what_is_there_once(file, old, new, tests):
    assert (mutations.ROOT / file).read_text(encoding="utf-8").count(old) == 1
    assert old != new
