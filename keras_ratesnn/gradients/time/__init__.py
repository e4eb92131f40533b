"""Time in handlers and networks: windows of steps, loops over steps, and the derivative
of a step."""
