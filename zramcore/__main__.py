"""`python -m zramcore`."""

import sys

from .cli import main

sys.exit(main())
