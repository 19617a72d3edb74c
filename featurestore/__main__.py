"""``python -m featurestore``."""

from featurestore.cli.main import main

if __name__ == "__main__":
    main()
