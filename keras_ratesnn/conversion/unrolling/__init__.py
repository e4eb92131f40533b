"""Networks of integer spikes as networks of binary ones."""
