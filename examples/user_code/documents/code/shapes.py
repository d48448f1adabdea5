"""Areas of shapes."""

import math


def circle(radius: float) -> float:
    """Area of a circle."""
    return math.pi * radius**2


class Square:
    """A square."""

    def __init__(self, side: float) -> None:
        self.side = side

    def area(self) -> float:
        """Its area."""
        return self.side**2
