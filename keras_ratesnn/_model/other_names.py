"""Names of arguments and attributes of models in other libraries, and what they are
here."""

OTHER_NAMES = {
    **dict.fromkeys(
        ("num_steps", "T", "time_steps"),
        "The number of time steps is timesteps={value!r}.",
    ),
    **dict.fromkeys(
        ("return_membrane", "return_mem"),
        "keras_ratesnn.analysis.observed(model, membranes=[name]) gives the membranes "
        "of a layer beside the outputs.",
    ),
    "stepmode": 'The order of layers and steps is step_mode="multi" or "single".',
    **dict.fromkeys(
        ("method", "grad", "surrogate"),
        'The training method is gradient="rate"; a surrogate is an argument of '
        "neurons.",
    ),
}
