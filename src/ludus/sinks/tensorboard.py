"""TensorBoard: event files in `runs/NAME/tensorboard`; look at all runs with `tensorboard --logdir runs`."""

from __future__ import annotations

import json
import time

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.types_pb2 import DT_STRING
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from ludus.sinks.sink import Row, RunInfo, Sink, figures

FLUSH_S = 10
"""How far a TensorBoard that is open may lag behind."""


class TensorBoard(Sink):
    """Writes events with TensorBoard's own writer; PyTorch's does the same, but would load PyTorch."""

    def __init__(self, run: RunInfo) -> None:
        self._writer = EventFileWriter(str(run.path / "tensorboard"), flush_secs=FLUSH_S)
        # From step 0 on, what earlier event files hold is not to be shown: all of it follows here.
        self._add(Event(step=0, session_log=SessionLog(status=SessionLog.START)))
        self._add(Event(step=0, summary=_as_text("recipe", _indented(run.config))))

    def log(self, row: Row, step: int) -> None:
        """A point in each figure's chart."""
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in figures(row).items()]
        self._add(Event(step=step, summary=Summary(value=values)))

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()

    def _add(self, event: Event) -> None:
        event.wall_time = time.time()
        self._writer.add_event(event)


def _as_text(tag: str, text: str) -> Summary:
    """What the text page shows."""
    metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
    tensor = TensorProto(dtype=DT_STRING, string_val=[text.encode()])
    return Summary(value=[Summary.Value(tag=tag, metadata=metadata, tensor=tensor)])


def _indented(config: object) -> str:
    """JSON as a block of Markdown."""
    return "".join(f"    {line}\n" for line in json.dumps(config, indent=2, default=str).splitlines())
