"""`python -m parsecrl`: the command `parsec`, where its script is not on the path."""

import sys

from parsecrl.platform.cli import main

sys.exit(main())
