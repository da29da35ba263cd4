"""OpenAI's wire format and ours. Pure functions of plain dicts."""

from __future__ import annotations

from ludus.recording.wire.messages import canonical as canonical
from ludus.recording.wire.messages import cut_at as cut_at
from ludus.recording.wire.messages import decode as decode
from ludus.recording.wire.messages import encode as encode
from ludus.recording.wire.requests import ROLES as ROLES
from ludus.recording.wire.requests import ChatRequest as ChatRequest
from ludus.recording.wire.requests import CompletionRequest as CompletionRequest
from ludus.recording.wire.requests import check_fields as check_fields
from ludus.recording.wire.requests import check_sampling as check_sampling
from ludus.recording.wire.requests import parse_chat as parse_chat
from ludus.recording.wire.requests import parse_completion as parse_completion
from ludus.recording.wire.requests import read_text as read_text
from ludus.recording.wire.requests import show as show
from ludus.recording.wire.responses import DONE as DONE
from ludus.recording.wire.responses import TokenLogprobs as TokenLogprobs
from ludus.recording.wire.responses import chat_chunks as chat_chunks
from ludus.recording.wire.responses import chat_response as chat_response
from ludus.recording.wire.responses import completion_chunks as completion_chunks
from ludus.recording.wire.responses import completion_response as completion_response
from ludus.recording.wire.responses import error_body as error_body
from ludus.recording.wire.responses import error_event as error_event
from ludus.recording.wire.responses import models_response as models_response
from ludus.recording.wire.responses import text_chunk as text_chunk
