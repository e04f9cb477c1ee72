"""What the fork server of `command.py` imports once, so that a command need not import it again."""

from textcl.cli.main import quieten

quieten()  # before the imports, as a command does

import textcl.cli.cluster  # noqa: E402
import textcl.cli.train  # noqa: E402
import textcl.evaluation.suite  # noqa: E402
import textcl.runs.compare  # noqa: E402
import textcl.vectors.index  # noqa: E402, F401
