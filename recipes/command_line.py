"""Shared by the command lines."""

USER_MISTAKE = 2
"""Exit status, the same as that of argparse."""
