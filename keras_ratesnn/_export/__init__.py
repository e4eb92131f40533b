"""Export to the formats that Keras writes."""
