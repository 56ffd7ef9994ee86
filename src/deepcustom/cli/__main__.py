"""``python -m deepcustom.cli``."""

from deepcustom.cli.door import main

if __name__ == "__main__":
    main()
