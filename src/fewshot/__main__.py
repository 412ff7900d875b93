"""`python -m fewshot` is `fewshot`."""

import sys

from fewshot.cli.main import main

sys.exit(main())
