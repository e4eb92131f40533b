"""What becomes of networks of KerasHub, and how its tasks train. KerasHub is not in the
extra `test`: .ci/versions kerashub."""

import conversions
import pytest

keras_hub = pytest.importorskip(
    "keras_hub",
    reason="its dependencies are not in the extra test: see .ci/versions kerashub",
)

# KerasHub gives its own pipelines of data to `fit`, of which Keras warns.
pytestmark = [
    pytest.mark.backends(3),
    pytest.mark.filterwarnings("ignore:`shuffle=True` was passed:UserWarning"),
]

NETWORKS = conversions.networks("keras_hub")


@pytest.mark.filterwarnings("ignore:Layer 'attn':UserWarning")
@pytest.mark.parametrize("name", NETWORKS)
def test_the_page_shows_what_becomes_of_a_network_and_a_task_is_trained_and_saved(name):
    model = conversions.converted(NETWORKS[name]())
    row = conversions.row(name, model)
    assert conversions.is_shown(row), row
    if hasattr(model, "preprocessor"):
        conversions.check_task(model)
