"""What scripts that compare quantmill with other tools demand, and how a refusal differs from a failure."""
import measured_run


class Refused(Exception):
    """A reader or writer said no; the message is the result. instead: what was shown in its place."""

    instead = ""


class Failure(Exception):
    pass


def demand(condition, message):
    if not condition:
        raise Failure(message)


def quantmill(*arguments, folders=()):
    """Runs it. Refused with its one line, in which no path begins with one of `folders` or the root."""
    done = measured_run.run(*arguments, expect=None)
    if done.code in (2, 3):
        told = " ".join(done.stderr.split())
        for folder in (*folders, measured_run.ROOT):
            told = told.replace(f"{folder}/", "")
        raise Refused(told)
    demand(done.code == 0, f"quantmill {arguments[0]} ended with {done.code}: {done.stderr}")
    return done
