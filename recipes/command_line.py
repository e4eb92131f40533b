"""What the command lines share."""

USER_MISTAKE = 2
"""Exit status, as argparse has it."""
