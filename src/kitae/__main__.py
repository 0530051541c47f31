"""`python -m kitae`, as torchrun wants it."""

from kitae.cli import main

if __name__ == "__main__":
    main()
