"""Its tool, a server of its own that all rollouts share."""

import verifiers.v1 as vf


class LookToolset(vf.Toolset[vf.SharedToolsetConfig]):
    @vf.tool
    def look(self, place: str) -> str:
        """What is there."""
        return f"nothing in the {place}"


if __name__ == "__main__":
    LookToolset.run()
