"""How `keras.distillation.Distiller` compares models and reads their features."""

import types


class ExtractsFeatures:
    """A mixin for `keras.distillation.Distiller`, which reads features of a model by a
    second model.

    Keras would make that of the layers of a `SpikingModel`, or of its network of one
    time step. A subclass implements `feature_model(model, layer_names)`: a model with
    the outputs of `model` as `"final_output"` and those of its layers by name. It also
    implements `teacher_features(extract, x)` and `student_features(extract)`: the
    features that are compared, where `extract()` is how Keras finds them; and
    `compared_inputs(model, other)`, the symbolic inputs of a model, whose shapes must
    be those of the other.
    """

    def _validate_input_compatibility(self, teacher, student):
        compared = [
            types.SimpleNamespace(inputs=self.compared_inputs(*models))  # type: ignore[attr-defined]
            for models in ((teacher, student), (student, teacher))
        ]
        super()._validate_input_compatibility(*compared)  # type: ignore[misc]

    def _extract_all_teacher_features(self, x):
        extract = super()._extract_all_teacher_features  # type: ignore[misc]
        return self.teacher_features(lambda: extract(x), x)  # type: ignore[attr-defined]

    def _extract_all_student_features(self, x, y_pred):
        extract = super()._extract_all_student_features  # type: ignore[misc]
        return self.student_features(lambda: extract(x, y_pred))  # type: ignore[attr-defined]

    def _create_feature_extractor(self, model, layer_names):
        return self.feature_model(model, layer_names) if layer_names else None  # type: ignore[attr-defined]

    def _feature_models(self):
        """Two pairs: the student, then the teacher, each with the model that reads its
        features, or `None`."""
        extractors = self._student_feature_extractor, self._teacher_feature_extractor  # type: ignore[attr-defined]
        return zip((self.student, self.teacher), extractors, strict=True)  # type: ignore[attr-defined]
