"""`python -m dayjob`: the command line without its console script."""

from dayjob.cli import main

if __name__ == "__main__":
    main()
