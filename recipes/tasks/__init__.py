"""The tasks that networks are trained for: each file has a `Task`."""
