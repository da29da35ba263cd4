"""An environment that nobody here can play, with the sampling that it is told to prefer."""

import ludus


class WithoutExpert(ludus.Environment):
    def __init__(
        self, turns: int = 1, narrowest: int = 1, widest: int = 1, largest: int = 1, top_p: float = 1.0
    ) -> None:
        self.sampling = {"top_p": top_p}

    def tasks(self, split):
        return [ludus.Task(prompt="?")]

    @ludus.reward
    def good(self, rollout) -> float:
        return 1.0
