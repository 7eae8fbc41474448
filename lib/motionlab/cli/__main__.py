"""`python -m motionlab.cli`, for where the console script cannot be named (accelerate launch)."""
import sys

from motionlab.cli import main

if __name__ == "__main__":
    sys.exit(main())
