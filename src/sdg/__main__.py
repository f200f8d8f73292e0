"""`python -m sdg` is the same as `sdg`."""

from sdg.cli import main

if __name__ == "__main__":
    main()
