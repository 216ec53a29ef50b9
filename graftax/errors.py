"""The one exception a user sees: a line that says what is wrong and what to do about it."""


class GraftaxError(Exception):
    """Bad input, or a state of the disk that a person must settle. The command line prints it and exits with code 2."""
