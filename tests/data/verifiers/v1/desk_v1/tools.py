"""The server of the tools, a program of its own."""

import verifiers.v1 as vf


class DeskState(vf.State):
    drawer: list[str] = []


class DeskToolsConfig(vf.ToolsetConfig):
    pass


class DeskTools(vf.Toolset[DeskToolsConfig, DeskState]):
    @vf.tool
    async def take(self, what: str) -> str:
        """Take something out of the drawer."""
        if what not in self.state.drawer:
            raise ValueError(f"there is no {what}")
        self.state.drawer = [thing for thing in self.state.drawer if thing != what]
        return f"you have {what}"


if __name__ == "__main__":
    DeskTools.run()
