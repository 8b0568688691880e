"""What can go wrong with the stack itself."""


class StackError(RuntimeError):
    """The stack could not do what it was asked; the message says what to do."""
