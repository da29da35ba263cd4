"""The tool, which does what it is told: raise, exit, die, wait."""

import os
import sys
import time

import verifiers.v1 as vf


class Opened(vf.State):
    boxes: int = 0


class BoxToolset(vf.Toolset[vf.SharedToolsetConfig, Opened]):
    async def setup(self) -> None:
        self.made_by = os.getpid()

    @vf.tool
    def open(self, order: str) -> str:
        """Open a box."""
        if order == "raise":
            raise LookupError("the box is locked")
        if order == "exit":
            sys.exit(3)
        if order == "die":
            os._exit(9)
        if order == "wait":
            time.sleep(0.2)
        self.state.boxes += 1
        return f"a key, by {self.made_by == os.getpid()}"


if __name__ == "__main__":
    BoxToolset.run()
