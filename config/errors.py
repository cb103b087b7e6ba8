"""What is wrong with a configuration."""

from collections.abc import Sequence


class ConfigError(Exception):
    """The settings cannot be used; ``problems`` has a sentence for each thing to put right."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = list(problems)
