"""The package's own exceptions: one small tree, one exit code each.

What is expected at run time (a server that is down, a probe that timed out) is a value in
`batsignal.snapshot`, never an exception. What is raised here ends a command.
"""


class BatSignalError(Exception):
    """Something the user can mend; the message is one line and says how."""

    exit_code = 1


class ConfigError(BatSignalError):
    """A config file, environment variable or argument is unusable; names file, key and what was expected."""

    exit_code = 2


class UnreachableError(BatSignalError):
    """Something a command cannot do without (a port, a daemon, a server program) is not to be had."""

    exit_code = 3
