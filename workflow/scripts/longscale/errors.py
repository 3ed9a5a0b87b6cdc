"""The one exception that a user is meant to see."""


class LongscaleError(Exception):
    """Bad input or a failed step, told in one sentence.

    The sentence names the file, line or key, says what is wrong and what would be right.
    Scripts print it without a traceback and exit with 1.
    """
