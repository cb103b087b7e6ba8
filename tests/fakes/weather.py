"""What the wire between pretended servers does to what they send."""

import random
from dataclasses import dataclass


@dataclass
class Weather:
    """What the wire does. Chances are between 0 and 1, delays in seconds."""

    chance: random.Random
    loss: float = 0.0
    duplicates: float = 0.0
    delay: float = 0.0

    def lost(self) -> bool:
        return self.loss > 0 and self.chance.random() < self.loss

    def doubled(self) -> bool:
        return self.duplicates > 0 and self.chance.random() < self.duplicates

    def wait(self) -> float:
        return self.chance.random() * self.delay if self.delay else 0.0
