"""Writes to a file that cannot grow past eight bytes, which tears a line, and then can.

python -m tests.programs.full_disk PATH [rotated]
"""

import json
import resource
import sys
from pathlib import Path

from otel_personalization.outputs import output_for


def main() -> None:
    path = Path(sys.argv[1])
    output = output_for(str(path))
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8, unlimited[1]))
    lost = [
        output.write([b"aaaa\n", b"bbbb\n", b"cccc\n", b"cccc\n"]).lost,
        output.write([b"dddd\n", b"eeee\n", b"ffff\n"]).lost,
    ]
    resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    if sys.argv[2:]:
        path.unlink()
    lost.append(output.write([b"gggg\n", b"hhhh\n", b"iiii\n"]).lost)
    print(json.dumps({"lost": lost, "text": path.read_text()}))


if __name__ == "__main__":
    main()
