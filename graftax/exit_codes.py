"""The exit codes of commands, and what they mean to whoever starts them: a shell, a scheduler, a JobSet's failure policy."""

UNEXPECTED = 1  # an error of graftax itself, or nobody reads what is printed any more
REFUSED = 2  # bad input, or something that a person must settle: to start again as it is helps nothing
AGAIN = 75  # other processes of the run are gone: nothing is wrong here, start all again (EX_TEMPFAIL of sysexits.h)
STALLED = 124  # nothing was done for as long as was allowed, and the watchdog has ended it (as `timeout` says that)
INTERRUPTED = 130  # by Ctrl-C or SIGTERM, the state is saved: the same command goes on
