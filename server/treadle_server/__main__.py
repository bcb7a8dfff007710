"""`python -m treadle_server` serves."""

from treadle_server.cli import main

if __name__ == "__main__":
    main()
