"""The command `graftax`, also as `python -m graftax`.

Errors are one line and an exit code (`exit_codes.py`), a traceback only with --debug.
"""

from __future__ import annotations

import sys
from io import TextIOWrapper
from typing import NoReturn

import typer

from .cache import use_compilation_cache
from .cli import app
from .cli.usage import usage_line
from .errors import GraftaxError, in_a_line
from .exit_codes import AGAIN, INTERRUPTED, REFUSED, UNEXPECTED
from .notes import print_notes
from .processes import await_verdict, end, part
from .signals import leave, leave_where_swallowed


def main() -> NoReturn:
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    use_compilation_cache()
    print_notes()
    leave_where_swallowed()
    if isinstance(sys.stdout, TextIOWrapper) and (sys.stdout.errors == "strict" or sys.stdout.encoding.lower() != "utf-8"):
        sys.stdout.reconfigure(errors="backslashreplace")  # as standard error: labels may have letters that a terminal lacks
    try:
        code = app(args=arguments, prog_name="graftax", standalone_mode=False)
    except GraftaxError as error:
        if debug:
            raise
        if error.exit_code == AGAIN:
            leave(f"graftax: {error}", AGAIN)
        if error.exit_code == INTERRUPTED:
            part()
            leave(f"graftax: {error}")
        print(f"graftax: {error}", file=sys.stderr)
        end(error.exit_code)
    except typer.Exit as stop:
        end(stop.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        leave("graftax: interrupted")
    except BrokenPipeError:
        end(UNEXPECTED)
    except OSError as error:
        if debug:
            raise
        print(f"graftax: {in_a_line(str(error))}", file=sys.stderr)
        end(REFUSED)
    except Exception as error:
        if debug:
            raise
        if not hasattr(error, "format_message"):  # typer's own errors have it: a wrong option, a missing argument
            said = in_a_line(f"unexpected {type(error).__name__}: {error}")
            print(f"graftax: {said} (run again with --debug for the traceback)", file=sys.stderr)
            await_verdict(error)
            end(UNEXPECTED)
        if line := usage_line(error):
            print(f"graftax: {line}", file=sys.stderr)
        end(REFUSED)
    if code == INTERRUPTED:  # typer's way to say that Ctrl-C was pressed
        leave("graftax: interrupted")
    end(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
