"""What handlers and networks know of time: windows of steps, loops over steps, and the
derivative of a step."""
