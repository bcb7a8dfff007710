"""The server with a limit of open files of its own: `python -m tests.abuse.few_files`, from `FILES_MAX`."""

import os
import resource

from treadle_server.cli import main

if __name__ == "__main__":
    files = int(os.environ["FILES_MAX"])
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    main()
