"""How steps run is public: which engine has run them, and the numbers that decide on
it."""

import numpy as np
import pytest
from helpers import BACKEND, compiled, data, only_on, spiking

import keras_ratesnn as rsnn

OTHERS = {
    "torch": {
        "eager_calls": {"auto": 2, True: 2},
        "calls_in_a_row": 0,
        "compiler": "eager",
        "least_elements": 3,
    },
    "jax": {"unrolled_steps": {"cpu": {False: 8, True: 8}, "gpu": {False: 1, True: 1}}},
}
OTHERS["tensorflow"] = OTHERS["jax"] | {"least_elements": 3}
OTHERS["jax"] = OTHERS["jax"] | {"platform": "tpu"}


def test_settings_hold_in_their_context_and_what_it_yields_changes_nothing():
    with rsnn.engine_settings() as before:
        pass
    with rsnn.engine_settings(**OTHERS[BACKEND]) as settings:
        assert settings == OTHERS[BACKEND]
        next(iter(settings.values())).clear()
        with rsnn.engine_settings() as inside:
            assert inside == OTHERS[BACKEND]
    with pytest.raises(KeyError), rsnn.engine_settings(**OTHERS[BACKEND]):
        raise KeyError
    with rsnn.engine_settings() as after:
        assert after == before


@only_on("jax", "other programs have no text")
@pytest.mark.parametrize(
    ("cpu", "gpu", "platform", "is_loop"),
    [
        (1, 1, "auto", True),
        (4, 1, "auto", False),
        (1, 4, "cuda", False),
        (4, 1, "tpu", True),
    ],
)
def test_loops_over_time_are_unrolled_as_set_for_a_platform(
    cpu, gpu, platform, is_loop
):
    import jax

    model, x = spiking(timesteps=4), data(4)[0]
    weights = [variable.value for variable in model.trainable_variables]
    state = [variable.value for variable in model.non_trainable_variables]
    steps = {"cpu": {False: cpu, True: cpu}, "gpu": {False: gpu, True: gpu}}
    with rsnn.engine_settings(unrolled_steps=steps, platform=platform):
        program = jax.make_jaxpr(model.stateless_call)(weights, state, x)
    assert ("scan[" in str(program)) == is_loop


def test_wrong_settings_are_errors_and_change_nothing():
    name = next(iter(OTHERS[BACKEND]))
    with rsnn.engine_settings() as before:
        for changes, error, said in (
            ({"threads": 1}, ValueError, f"must be one of .*{name}.*changes='threads'"),
            ({name: 3}, TypeError, f"`{name}` must be a dict with the keys .*{name}=3"),
        ):
            with pytest.raises(error, match=said), rsnn.engine_settings(**changes):
                pass
        with rsnn.engine_settings() as after:
            assert after == before


def test_a_model_says_which_engine_has_run_its_calls():
    x, _ = data(4)
    model = compiled(spiking())
    if BACKEND != "torch":
        model.predict(x, verbose=0)
        assert model.execution == "keras"
        return
    engines, outputs = [], []
    with rsnn.engine_settings(eager_calls={"auto": 1, True: 1}, compiler="eager"):
        for jit_compile in ("auto", True):
            model = compiled(spiking(model.network), jit_compile=jit_compile)
            for _ in range(3):
                outputs.append(model.predict_on_batch(x))
                engines.append(model.execution)
    assert engines == ["eager", "recorded", "recorded", "eager", "recorded", "compiled"]
    assert all(np.array_equal(each, outputs[0]) for each in outputs)
