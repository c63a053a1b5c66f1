"""`python -m portico.supervisor`: what `portico run` becomes once the file has been read."""

from __future__ import annotations

import argparse
import os
import sys

from portico.observe.log import ProcessLog
from portico.runtime import descriptors
from portico.runtime.title import entitle
from portico.supervisor.doors import CannotStart, inherited
from portico.supervisor.handover import BadHandover, Handover
from portico.supervisor.supervisor import Supervisor
from portico.supervisor.systemd import Notifier, activated


def main() -> int:
    """Run a supervisor to its end."""
    parser = argparse.ArgumentParser(prog="portico supervisor", description="Started by `portico run`.")
    parser.add_argument("--handover", required=True, type=int, help="descriptor of what to begin with")
    options = parser.parse_args()
    log = ProcessLog("supervisor", "%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        handover = Handover.read(options.handover)
    except BadHandover as error:
        sys.stderr.write(f"portico cannot go on from what was handed over: {error}\n")
        return 1
    os.close(options.handover)
    file = handover.plan.file
    entitle(f"supervisor {file}")
    descriptors.take_all()
    try:
        supervisor = Supervisor(
            handover, Notifier(os.environ), inherited(activated(os.environ)), speak=log.speak_and_pass_on
        )
        return supervisor.run()
    except CannotStart as error:
        sys.stderr.write(f"{file}: {error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
