"""`python -m distsep`: the same as the command `distsep`."""

from distsep.cli import main

if __name__ == "__main__":
    main()
