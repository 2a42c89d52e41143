"""`python -m tseg`: the same as `tseg`."""

from tseg.cli import main

if __name__ == "__main__":
    main()
