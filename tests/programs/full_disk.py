"""Writes to a file that cannot grow past eight bytes, which tears a line, and then can.

python -m tests.programs.full_disk PATH file|rotated|stdout|child
"""

import json
import os
import resource
import sys
from pathlib import Path

from otel_personalization.outputs import output_for


def main() -> None:
    path, where = Path(sys.argv[1]), sys.argv[2]
    stdout = os.dup(1)
    if where in ("stdout", "child"):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), 1)
    output = output_for("stdout" if where in ("stdout", "child") else str(path))
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8, unlimited[1]))
    lost = [
        output.write([b"aaaa\n", b"bbbb\n", b"cccc\n", b"cccc\n"]).lost,
        output.write([b"dddd\n", b"eeee\n", b"ffff\n"]).lost,
    ]
    resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    if where == "rotated":
        path.unlink()
    lines = [b"gggg\n", b"hhhh\n", b"iiii\n"]
    if where == "child":
        waiting, written = os.pipe()
        child = os.fork()
        if not child:
            os.read(waiting, 1)  # until the parent has written
            os._exit(output.write(lines[1:]).lost)
        lost.append(output.write(lines[:1]).lost)
        os.write(written, b".")
        lost[-1] += os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    else:
        lost.append(output.write(lines).lost)
    printed = json.dumps({"lost": lost, "text": path.read_text()})
    os.write(stdout, printed.encode() + b"\n")


if __name__ == "__main__":
    main()
