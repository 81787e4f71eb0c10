"""What every test starts from, and how long it may take to leave."""

import faulthandler
import os
import signal

import pytest

TEARDOWN = 120  # s; pytest-timeout no longer watches a test that has failed
errors = pytest.StashKey()


def pytest_configure(config: pytest.Config) -> None:
    """A shell that starts the tests in the background, or nohup, has them ignore these signals.

    Tests send both, and the processes they start inherit what is ignored.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    config.stash[errors] = os.dup(2)  # which capturing takes for itself


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item):
    """A teardown that hangs ends the whole run, with every thread's stack."""
    faulthandler.dump_traceback_later(TEARDOWN, exit=True, file=item.config.stash[errors])
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()
